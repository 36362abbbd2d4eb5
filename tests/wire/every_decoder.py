"""Every decoder as the corpus has it: bytes and a bound in, columns out."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

from meterite.model.columns import NO_TIME
from meterite.model.errors import MeteriteError
from meterite.wire.collectd import decode_collectd
from meterite.wire.exposition import decode_exposition, is_openmetrics
from meterite.wire.exposition_proto import decode_families
from meterite.wire.gather import Gathered
from meterite.wire.graphite import decode_graphite, decode_pickles
from meterite.wire.line_protocol import decode_line_protocol
from meterite.wire.names import Names
from meterite.wire.otlp import decode_otlp
from meterite.wire.otlp_json import decode_otlp_json
from meterite.wire.plain import decode_plain
from meterite.wire.push import decode_push
from meterite.wire.readings_csv import decode_csv
from meterite.wire.readings_json import decode_json, decode_ndjson
from meterite.wire.remote_write import MESSAGE_1, MESSAGE_2, decode_remote_write
from meterite.wire.statsd import decode_statsd
from meterite.wire.victoria import decode_csv_columns, decode_import, parse_csv_format

CORPUS = Path(__file__).parent / "corpus"
CSV_FORMAT = "1:label:ticker,2:metric:ask,3:metric:bid,4:time:unix_s,5:label:market"


def exposition(body, *, readings_max):
    """The format that it is by its end."""
    return decode_exposition(body, readings_max=readings_max, openmetrics=is_openmetrics(body))


def one_pickle(body, *, readings_max):
    """By itself."""
    return decode_pickles([body], readings_max=readings_max)


def known(decode, **options):
    """Twice, so that the second time its names are known."""

    def decode_twice(body, *, readings_max):
        names = Names()
        with contextlib.suppress(MeteriteError):
            decode(body, names=names, readings_max=readings_max, **options)
        return decode(body, names=names, readings_max=readings_max, **options)

    return decode_twice


def push(body, *, readings_max):
    """Its one reading, of the metric that the path would name."""
    found = decode_push(body)
    gathered = Gathered(readings_max)
    at_us = NO_TIME if found.at_us is None else found.at_us
    gathered.add(gathered.key("M1", dict(found.labels)), at_us, found.reading, 0)
    return gathered.decoded()


def statsd(body, *, readings_max):
    return decode_statsd(body)


DECODERS = {
    "collectd": decode_collectd,
    "columns": functools.partial(decode_json, precision="ms"),
    "csv": functools.partial(decode_csv, precision=None),
    "exposition": exposition,
    "families": known(decode_families),
    "graphite": decode_graphite,
    "lp": functools.partial(decode_line_protocol, precision=None),
    "ndjson": functools.partial(decode_ndjson, precision=None),
    "otlp": decode_otlp,
    "otlpjson": decode_otlp_json,
    "pickle": one_pickle,
    "plain": functools.partial(decode_plain, precision="s", code="M1", labels=(("host", "a"),)),
    "push": push,
    "readings": functools.partial(decode_json, precision=None),
    "rw1": known(decode_remote_write, message=MESSAGE_1),
    "rw2": known(decode_remote_write, message=MESSAGE_2),
    "statsd": statsd,
    "vmcsv": functools.partial(decode_csv_columns, columns=parse_csv_format(CSV_FORMAT)),
    "vmjson": decode_import,
}


def bodies_of(form):
    """Those of a format in the corpus, as paths."""
    return sorted((CORPUS / form).glob(f"*.{form}"))
