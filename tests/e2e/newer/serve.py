"""The program with one revision more than it has: the same ``meterite serve``, which migrates the file at its start.

Where ``HALT_AT`` names a place in the revision, it leaves a file ``halted`` there and goes no further.
"""

import shutil
from pathlib import Path

from meterite.cli.main import main
from meterite.storage import database, file, migrate

HERE = Path(__file__).resolve().parent
migrations = Path("migrations").absolute()
shutil.copytree(migrate.MIGRATIONS, migrations, dirs_exist_ok=True)
shutil.copy(HERE / "9999_newer.py", migrations / "versions")
migrate.MIGRATIONS = migrations
for module in (database, file):
    module.SCHEMA_REVISION += 1

main()
