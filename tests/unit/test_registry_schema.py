"""The migrations make exactly the tables that the code uses, and `HEAD` names the newest of them."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from gateway.registry import migrations
from gateway.registry.database import Database
from gateway.registry.tables import SECTIONS, metadata, versions


def test_migrated_tables_are_those_of_the_code(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    with database.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
        sections = {row.section for row in connection.execute(versions.select())}
    database.close()
    assert differences == []
    assert sections == set(SECTIONS)


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]
