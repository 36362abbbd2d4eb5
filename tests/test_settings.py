"""Settings: what is read, and what stops the start."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from meterite.model.errors import SettingsError
from meterite.settings import Settings, load_plugin_settings, load_settings

SECRET = "hush-hush-123456"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def env_file(tmp_path, monkeypatch):
    """An empty directory to start in, and an environment without our names."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    return tmp_path / ".env"


def refused(text: str, env_file: Path) -> str:
    env_file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "\n" not in caught.value.message
    assert SECRET not in caught.value.message
    return caught.value.message


def test_the_contracts_own_file_is_read(env_file):
    """The four lines of the contract are good as they stand."""
    env_file.write_text(
        'database_url="sqlite:////tmp/meterite.db"\napi_key_name="x-auth-token"\ncookie_domain="localtest.me"\n'
        'api_tokens={"123456": "org_01", "567890": "org_02"}\n',
        encoding="utf-8",
    )
    settings = load_settings()
    assert settings.database_url == "sqlite:////tmp/meterite.db"
    assert settings.tokens() == {"123456": "org_01", "567890": "org_02"}
    assert (settings.access_log, settings.body_bytes_max, settings.ratio_max) == (False, 32 * 1024**2, 200)


def test_the_environment_wins(env_file, monkeypatch):
    """A variable of the same name, whatever its case, overrides the file."""
    env_file.write_text('api_tokens={"a": "one"}\nlog_format=json\n', encoding="utf-8")
    monkeypatch.setenv("API_TOKENS", '{"b": "two"}')
    monkeypatch.setenv("COOKIE_SECRET", '["0123456789abcdef", "fedcba9876543210"]')
    settings = load_settings()
    assert settings.tokens() == {"b": "two"}
    assert settings.cookie_secrets() == [b"0123456789abcdef", b"fedcba9876543210"]
    assert settings.log_format == "json"


def test_no_token_shows(env_file):
    """Neither ``repr`` nor ``str`` nor a dump shows a token; settings can't be changed."""
    env_file.write_text(f'api_tokens={{"{SECRET}": "one"}}\ncookie_secret=["{SECRET}"]\n', encoding="utf-8")
    settings = load_settings()
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    with pytest.raises(Exception, match="frozen"):
        settings.api_key_name = "other"  # type: ignore[misc] # the very mistake


def test_handlers_show_their_names_only(env_file):
    """Any option may be a secret, so none of them shows; in the clear they are what was written."""
    handlers = (
        f'[{{"name": "ops", "kind": "webhook", "url": "https://x/?key={SECRET}", "secret": "{SECRET}"}}]'
    )
    env_file.write_text(f'api_tokens={{"{SECRET}": "one"}}\nhandlers={handlers}\n', encoding="utf-8")
    settings = load_settings()
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert [(handler.name, handler.kind) for handler in settings.handlers] == [("ops", "webhook")]
    assert settings.handlers[0].in_clear()["secret"] == SECRET


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", ()),
        ("acme.alerts", ("acme.alerts",)),
        ("acme.alerts, acme:plugin", ("acme.alerts", "acme:plugin")),
        ('["acme", "acme"]', ("acme",)),
    ],
)
def test_plugins_are_dotted_paths(env_file, text, paths):
    """One, several divided by commas, or a JSON list; read without any token, as the command line does."""
    env_file.write_text(f"plugins={text}\nplugins_dir=\n", encoding="utf-8")
    settings = load_plugin_settings()
    assert (settings.plugins, settings.plugins_dir, settings.strict_plugins) == (paths, None, False)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (f"{{'{SECRET}': 'one'}}", "is not JSON"),
        (f'["{SECRET}"]', "must be a JSON object"),
        (f'{{"{SECRET}": "one", "{SECRET}": "two"}}', "one token for two orgs"),
        ('{"": "one"}', "an empty token"),
        (f'{{"{SECRET}": ""}}', "an empty org"),
        (f'{{"{SECRET}": 7}}', "must name an org"),
        (f'{{"{SECRET} ": "one"}}', "starts or ends with a space"),
        ("{}", "names no token"),
        ("", "is not JSON"),
    ],
)
def test_tokens_that_cannot_be_used(env_file, tokens, said):
    """Each mistake in api_tokens is one line that names the setting and no token."""
    message = refused(f"api_tokens={tokens}\n", env_file)
    assert message.startswith("api_tokens ")
    assert said in message


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("api_key_name=x auth", "api_key_name must be"),
        ("api_key_name=Authorization", "api_key_name must not be"),
        ("cookie_domain=a b", "cookie_domain must be"),
        ("cookie_secret=no", "cookie_secret is not JSON"),
        ('cookie_secret=["short"]', "cookie_secret must have"),
        (
            "body_bytes_max=10MB",
            "body_bytes_max must be a whole number of bytes, in digits alone, such as 33554432",
        ),
        ("readings_max=1.5", "readings_max must be a whole number, in digits alone, such as 1000000"),
        ("events_keep=59m", "events_keep must be a duration of an hour or more"),
        ("events_keep=soon", "events_keep must be a duration of an hour or more"),
        ("journal_rows_max=0", "journal_rows_max must be 1 or more"),
        ("log_format=xml", "log_format must be 'auto', 'json' or 'console'"),
        (f"handlers=[{SECRET}]", "handlers is not JSON"),
        (f'handlers={{"name": "{SECRET}"}}', "handlers must be a JSON list"),
        (f'handlers=["{SECRET}"]', "handlers number 1 must be a JSON object"),
        (f'handlers=[{{"secret": "{SECRET}"}}]', "handlers number 1 needs a name"),
        (f'handlers=[{{"name": "ops", "secret": "{SECRET}"}}]', "handlers 'ops' needs a kind"),
        (
            'handlers=[{"name": "ops", "kind": "log"}, {"name": "ops", "kind": "exec"}]',
            "handlers names two handlers 'ops'",
        ),
        ("plugins=acme alerts", "plugins must be dotted paths"),
        ("plugins=[7]", "plugins must be dotted paths"),
        ("strict_plugins=perhaps", "strict_plugins must be true or false"),
        ("access_log=perhaps", "access_log must be true or false"),
        ("database_url=", "database_url must not be empty"),
        ("api_token={}", "api_token in .env is no setting; api_tokens is meant"),
        ("METERITE_LOG_FORMAT=json", "METERITE_LOG_FORMAT in .env is no setting; log_format"),
    ],
)
def test_other_mistakes(env_file, line, start):
    """Every setting is checked at the start, names that are nearly right included."""
    assert refused(f'api_tokens={{"{SECRET}": "one"}}\n{line}\n', env_file).startswith(start)


@pytest.mark.parametrize(
    ("line", "keep_s"), [("", 90 * 86_400.0), ("events_keep=1h", 3600.0), ("events_keep=", None)]
)
def test_how_long_events_are_kept(env_file, line, keep_s):
    """90 days; empty is for ever."""
    env_file.write_text(f'{line}\napi_tokens={{"a": "b"}}\n', encoding="utf-8")
    assert load_settings().events_keep_s() == keep_s


def test_a_missing_token_is_told(env_file):
    """Without api_tokens there is no start."""
    assert refused("", env_file).startswith("api_tokens is missing")


def test_near_names_in_the_environment(env_file, monkeypatch):
    """A slip in the environment stops the start; other programs' names don't."""
    env_file.write_text('api_tokens={"a": "one"}\n', encoding="utf-8")
    for name in ("API_KEY", "LOG_LEVEL", "DOCKER", "DB_URL", "DOC"):
        monkeypatch.setenv(name, "x")
    load_settings()
    monkeypatch.setenv("API_TOKEN", SECRET)
    with pytest.raises(SettingsError, match=r"^API_TOKEN in the environment is no setting; api_tokens"):
        load_settings()


def test_a_file_that_is_not_text(env_file):
    """Bytes that are no UTF-8 are one line, too."""
    env_file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"^\.env can't be read"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'api_tokens={{\n  "{SECRET}": "one"\n}}\n', "api_tokens in .env can't go on in line 2"),
        (f'access_log=true\n"{SECRET}": "one"\n', "access_log in .env can't go on in line 2"),
        (f'# a comment\n"{SECRET}: one"\n', ".env can't be read in line 2: write name=value"),
        (f'database_url="{SECRET}\n', "database_url in .env lacks its closing quote in line 1"),
        (
            f'docs=true\napi_tokens=\'{{"{SECRET}": "one"}}\nlog_format=json\n',
            "api_tokens in .env lacks its closing quote in line 2",
        ),
        (
            f'database_url="{SECRET}\nlog_format="json"\n',
            "database_url in .env lacks its closing quote in line 1",
        ),
        (f'api_tokens={{"{SECRET}":"one",\n"x":"two"}}\n', "api_tokens is not JSON; write it in one line"),
    ],
)
def test_a_line_that_can_not_be_read(env_file, capfd, caplog, text, said):
    """Told with its number in the one line, and with no other line before it."""
    assert refused(text, env_file).startswith(said)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_several_lines_between_quotes(env_file):
    """Where the file's format allows them."""
    env_file.write_text('api_tokens=\'{\n  "a": "one"\n}\'\n', encoding="utf-8")
    assert load_settings().tokens() == {"a": "one"}


def test_the_docs_name_every_setting():
    """A setting that docs/settings.md doesn't name, or one that is no more, fails here."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    named = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(named) == sorted(Settings.model_fields)


def test_tests_read_no_file_that_lies_about():
    """`make run` writes one where `make test` is started; what somebody adds to it is no matter of the tests."""
    careless = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Settings"
        if "_env_file" not in {keyword.arg for keyword in node.keywords}
    ]
    assert careless == []
