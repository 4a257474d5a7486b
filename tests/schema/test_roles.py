"""Who may do what: the matrix of roles and objects, held to the list below; and what attackers try."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from reproq_listen.db.creators import find_creators
from reproq_listen.db.migrations import migrate
from reproq_listen.db.roles import Change, grant
from reproq_listen.embedded.server import EmbeddedServer
from reproq_listen.errors import ContractError, ReproqError
from tests.schema import django
from tests.support.commands import run_here
from tests.support.database import Database, create_database, drop_database
from tests.support.logins import login, who

WORKER, PRODUCER, OPERATOR, OBSERVER, DJANGO = (
    f"reproq_{name}" for name in ("worker", "producer", "operator", "observer", "django")
)
GROUPS = (WORKER, PRODUCER, OPERATOR, OBSERVER, DJANGO)

# Every function that a role may call, with its audiences. Only the owner may call the others.
AUDIENCES: dict[str, set[str]] = {
    "reproq_contract": set(GROUPS),
    "reproq_channels": set(GROUPS) - {DJANGO},
    "reproq_now": set(GROUPS),
    "reproq_bucket_level": {OPERATOR, OBSERVER},
    "reproq_metrics": {WORKER, OPERATOR, OBSERVER},
    "reproq_spec_hash": {PRODUCER, OPERATOR},
    "reproq_register_worker": {WORKER},
    "reproq_unregister_worker": {WORKER},
    "reproq_claim": {WORKER},
    "reproq_heartbeat": {WORKER},
    "reproq_complete": {WORKER},
    "reproq_complete_and_claim": {WORKER},
    "reproq_fail": {WORKER},
    "reproq_release": {WORKER},
    "reproq_reclaim": {WORKER},
    "reproq_next_wake": {WORKER},
    "reproq_notify_on": {WORKER},
    "reproq_notify_off": {WORKER},
    "reproq_open_transactions": {WORKER},
    "reproq_save_metadata": {WORKER},
    "reproq_results": {WORKER},
    "reproq_complete_and_enqueue": {WORKER},
    "reproq_complete_one": {WORKER, PRODUCER},
    "reproq_step_save": {WORKER, PRODUCER},
    "reproq_steps_done": {WORKER},
    "reproq_schedules_due": {WORKER},
    "reproq_schedule_fire": {WORKER},
    "reproq_next_beat": {WORKER},
    "reproq_enqueue": {PRODUCER},
    "reproq_enqueue_many": {PRODUCER},
    "reproq_chain": {PRODUCER},
    "reproq_group": {PRODUCER},
    "reproq_chord": {PRODUCER},
    "reproq_result": {PRODUCER},
    "reproq_cancel": {OPERATOR},
    "reproq_retry": {OPERATOR},
    "reproq_retry_failed": {OPERATOR},
    "reproq_replay": {OPERATOR},
    "reproq_replay_by_hash": {OPERATOR},
    "reproq_pause": {OPERATOR},
    "reproq_resume": {OPERATOR},
    "reproq_limit_set": {OPERATOR},
    "reproq_limit_rm": {OPERATOR},
    "reproq_concurrency_set": {OPERATOR},
    "reproq_prune_expired": {OPERATOR},
    "reproq_prune_finished": {OPERATOR},
    "reproq_prune_audit": {OPERATOR},
    "reproq_schedule_set": {OPERATOR},
    "reproq_schedule_rm": {OPERATOR},
    "reproq_explain": {OPERATOR},
    "reproq_audit": {OPERATOR},
}
VIEWS: dict[str, set[str]] = {
    "reproq_queues": {OPERATOR, OBSERVER},
    "reproq_limits": {OPERATOR, OBSERVER},
    "reproq_live_workers": {WORKER, OPERATOR, OBSERVER},
    "reproq_dead_workers": {OPERATOR, OBSERVER},
    "reproq_schedules": {OPERATOR, OBSERVER},
    "reproq_tasks": {OPERATOR},
    "reproq_failures": {OPERATOR},
    "reproq_blocked": {OPERATOR},
    "reproq_concurrency": {OPERATOR},
}
# Table rights exist for reproq_django only; on task_runs column by column.
TABLES = {
    "periodic_tasks": {"SELECT", "INSERT", "UPDATE"},
    "reproq_queue_controls": {"SELECT", "INSERT", "UPDATE"},
    "workflow_runs": {"SELECT", "INSERT", "UPDATE"},
    "reproq_workers": {"SELECT"},
    "rate_limits": {"SELECT"},
}
OUR_COLUMNS = {
    *("lease_token", "leased_incarnation", "last_token", "last_answer", "lost_count", "snooze_count", "notify_end"),
    *("limit_key", "blocked_on", "concurrency_slot", "revision"),
}
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def give_rights(database: Database, schema: str | None = None) -> list[Change]:
    return grant(database.dsn, schema=schema, setting="--dsn", django=True, dry_run=False)[0]


@pytest.fixture(scope="module")
def granted(server_dsn: str, template: Database) -> Iterator[Database]:
    """A database whose rights are given."""
    clone = create_database(server_dsn, f"{template.name}_roles", template=template.name)
    give_rights(clone)
    yield clone
    drop_database(server_dsn, clone.name)


@pytest.fixture
def admin(granted: Database) -> Iterator[psycopg.Connection]:
    with granted.connect(autocommit=False) as connection:
        yield connection
        connection.rollback()


FUNCTIONS = """
    select p.proname, r.rolname
    from pg_proc p cross join (select rolname from pg_roles where rolname = any (%s) union all select 'public') r
    where p.pronamespace = 'public'::regnamespace and has_function_privilege(r.rolname, p.oid, 'execute')
"""


def test_functions(admin: psycopg.Connection) -> None:
    """Each function may be executed by its audiences only; internal ones by their owner alone."""
    may: dict[str, set[str]] = {}
    for function, role in admin.execute(FUNCTIONS, [list(GROUPS)]):
        may.setdefault(function, set()).add(role)
    assert may == AUDIENCES
    assert all(name.startswith("reproq_") for name in may)


def test_roles_every_entry_point_has_an_audience(admin: psycopg.Connection) -> None:
    """A new function that lends its owner's rights gets its audience here and in sql/roles.sql."""
    entries = admin.execute(
        "select p.proname from pg_proc p where p.pronamespace = 'public'::regnamespace"
        " and p.prosecdef and p.prorettype <> 'trigger'::regtype"
    )
    assert {row[0] for row in entries} - AUDIENCES.keys() == set()


def test_tables_and_views(admin: psycopg.Connection) -> None:
    """Views are for operators and, those without tasks, keys and errors, for observers; tables for Django only."""
    relations = admin.execute(
        "select c.relname, c.relkind from pg_class c where c.relnamespace = 'public'::regnamespace"
        " and c.relkind in ('r', 'v', 'm', 'S', 'p') and c.relname !~ '^(_yoyo|yoyo)'"
    ).fetchall()
    wrong = []
    for relation, kind in relations:
        for role in (*GROUPS, "public"):
            expected = {"SELECT"} if role in VIEWS.get(relation, ()) else set()
            if role == DJANGO and kind == "r":
                expected = TABLES.get(relation, set())
            has = {
                privilege
                for privilege in PRIVILEGES
                if admin.execute(
                    "select has_table_privilege(%s, format('public.%%I', %s::text), %s)", [role, relation, privilege]
                ).fetchone()
                == (True,)
            }
            if has != expected:
                wrong.append((relation, role, has))
    assert wrong == []
    assert {relation for relation, kind in relations if kind == "v"} == VIEWS.keys()


def test_django_sees_its_own_columns(admin: psycopg.Connection) -> None:
    """Reproq Django reads and writes the columns of its model, and no fence; no other role a single column."""
    columns = admin.execute(
        "select a.attname, r.rolname, p.p from pg_attribute a"
        " cross join unnest(%s::text[]) as r (rolname) cross join unnest('{select,insert,update}'::text[]) as p (p)"
        " where a.attrelid = 'public.task_runs'::regclass and a.attnum > 0 and not a.attisdropped"
        " and has_column_privilege(r.rolname, a.attrelid, a.attnum, p.p)",
        [[*GROUPS, "public"]],
    ).fetchall()
    assert {role for _, role, _ in columns} == {DJANGO}
    all_columns = admin.execute(
        "select a.attname from pg_attribute a where a.attrelid = 'public.task_runs'::regclass"
        " and a.attnum > 0 and not a.attisdropped"
    )
    theirs = {row[0] for row in all_columns} - OUR_COLUMNS
    for privilege in ("select", "insert", "update"):
        has = {column for column, _, held in columns if held == privilege}
        assert has == (theirs - {"result_id"} if privilege == "update" else theirs)


def test_giving_twice_changes_nothing_and_heals(granted: Database) -> None:
    """The second run finds nothing to do; rights that are not listed go, and those that are missing come back."""
    assert give_rights(granted) == []
    with granted.connect() as connection:
        connection.execute("grant select on task_runs to reproq_observer")
        connection.execute("grant select (spec_json) on task_runs to reproq_observer")
        connection.execute("grant execute on function _reproq_set_final to public")
        connection.execute("revoke execute on function reproq_claim from reproq_worker")
    changes = give_rights(granted)
    assert [change.change for change in changes] == ["removed"] * 3 + ["added"]
    assert changes[-1].what.startswith("execute on function reproq_claim(")
    assert give_rights(granted) == []


def test_roles_dry_run_changes_nothing(granted: Database) -> None:
    """What would change is said, and taken back."""
    with granted.connect() as connection:
        connection.execute("revoke execute on function reproq_claim from reproq_worker")
    for dry_run in (True, False):
        changes, _ = grant(granted.dsn, schema=None, setting="--dsn", django=False, dry_run=dry_run)
        assert [change.change for change in changes] == ["added"]


def test_several_at_once(granted: Database) -> None:
    """Deployments that overlap wait for one another."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            give_rights(granted)
        except ReproqError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_without_a_schema_there_is_nothing_to_grant(empty_database: Database) -> None:
    """The error names the remedy, and no role or right was left behind."""
    with pytest.raises(ContractError, match="reproq-listen migrate"):
        give_rights(empty_database)


def test_another_schema(empty_database: Database) -> None:
    """Rights go to the schema that is named, whatever its name."""
    migrate(empty_database.dsn, schema='my "tasks"', report=lambda _: None)
    give_rights(empty_database, 'my "tasks"')
    with login(empty_database, PRODUCER) as dsn, psycopg.connect(dsn, autocommit=True) as producer:
        assert producer.execute('select "my ""tasks""".reproq_enqueue($$app.add$$)').fetchone() == (1,)


def test_roles_owner_who_may_not_create_roles(own_server: tuple[EmbeddedServer, Database]) -> None:
    """He is told what to ask for; and once the roles are there, needs no other right than his ownership."""
    server, _ = own_server
    database = create_database(server.dsn(), "owned")
    with login(database) as dsn:
        with database.connect() as connection:
            owner = str(conninfo_to_dict(dsn)["user"])
            connection.execute(sql.SQL("grant create on database owned to {}").format(sql.Identifier(owner)))
        owned = Database("owned", dsn)
        migrate(dsn, schema="jobs", report=lambda _: None)
        with pytest.raises(ReproqError, match="create role reproq_worker nologin; create role reproq_producer"):
            grant(dsn, schema="jobs", setting="--dsn", django=False, dry_run=False)
        with database.connect() as connection:
            for role in GROUPS:
                connection.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
        _, advice = grant(dsn, schema="jobs", setting="--dsn", django=False, dry_run=False)
        assert [item.why for item in advice] == ["no role is a member of reproq_worker yet"]
        assert give_rights(owned, "jobs") == []
        with login(database, WORKER) as stranger, pytest.raises(ReproqError, match="owner of the schema"):
            grant(stranger, schema="jobs", setting="--dsn", django=False, dry_run=False)


def test_roles_who_may_make_objects_in_the_schema_is_listed(granted: Database) -> None:
    """Each role that could plant an overload of a built-in, with the statement that ends it; never the owner itself."""
    with granted.connect() as connection, login(granted) as dsn, login(granted) as member_dsn:
        stranger, member = (str(conninfo_to_dict(each)["user"]) for each in (dsn, member_dsn))
        connection.execute("create role reproq_test_owner nologin")
        owner = sql.SQL(
            "alter function reproq_contract() owner to {0}; grant create on schema public to {0}; grant {0} to {1};"
            "grant create on schema public to {1}, {2}, public"
        )
        names = map(sql.Identifier, ("reproq_test_owner", member, stranger))
        try:
            connection.execute(owner.format(*names))
            assert find_creators(granted.dsn, None, "--dsn") == [
                ("PUBLIC", "revoke create on schema public from public;"),
                (stranger, f"revoke create on schema public from {stranger};"),
            ]
            for role, remedy in find_creators(granted.dsn, "public", "--dsn"):
                assert run_here("grants", "--dsn", granted.dsn, "--dry-run").code == 1
                assert role in run_here("migrate", "--dsn", granted.dsn).out
                connection.execute(remedy.encode())
            assert run_here("grants", "--dsn", granted.dsn).code == 0
        finally:
            connection.execute(
                "alter function reproq_contract() owner to current_user; drop owned by reproq_test_owner"
            )
            connection.execute(sql.SQL("drop owned by {}, {}").format(*map(sql.Identifier, (stranger, member))))
            connection.execute("revoke create on schema public from public; drop role reproq_test_owner")


def test_role_that_can_plant_an_overload_of_a_built_in_is_listed(granted: Database) -> None:
    """Nothing stops a role that may create in the schema from planting one; so it is listed before it does."""
    plant = (
        "create function public.array_fill(jsonb, integer[]) returns jsonb[] language sql"
        " as $$ select array[$1] from generate_series(1, $2[1]) $$"
    )
    with granted.connect() as owner, login(granted, OPERATOR) as dsn, psycopg.connect(dsn, autocommit=True) as other:
        assert refused(other, plant)
        assert find_creators(granted.dsn, None, "--dsn") == []
        owner.execute(sql.SQL("grant create on schema public to {}").format(sql.Identifier(who(other))))
        other.execute(plant.encode())
        try:
            assert [creator.role for creator in find_creators(granted.dsn, None, "--dsn")] == [who(other)]
        finally:
            other.execute("drop function public.array_fill(jsonb, integer[])")
            owner.execute(sql.SQL("revoke create on schema public from {}").format(sql.Identifier(who(other))))


def refused(connection: psycopg.Connection, statement: str) -> bool:
    """Whether a statement is refused for want of a right."""
    try:
        connection.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def test_roles_producer_produces_and_nothing_else(granted: Database) -> None:
    """It enqueues in every form; it neither claims, nor reads, nor writes the table."""
    with login(granted, PRODUCER) as dsn, psycopg.connect(dsn, autocommit=True) as producer:
        producer.execute("select reproq_enqueue('app.add', '[1]', p_lock_key => 'k', p_run_after => now())")
        producer.execute("""select * from reproq_chain('[{"task_path": "app.a"}, {"task_path": "app.b"}]')""")
        producer.execute("""select * from reproq_chord('[{"task_path": "app.a"}]', '{"task_path": "app.b"}')""")
        for statement in (
            "select * from reproq_claim('w', '{default}', 1, '1 min')",
            "select * from task_runs",
            "insert into task_runs (spec_json, spec_hash) values ('{}', 'x')",
            "delete from task_runs",
            "select * from reproq_tasks",
            "select * from reproq_queues",
            "select reproq_cancel(1)",
            "select _reproq_key_hash('a')",
            "update reproq_queue_controls set paused = true",
            "set role reproq_worker",
        ):
            assert refused(producer, statement), statement


def test_roles_worker_sees_what_it_claims_and_no_more(granted: Database) -> None:
    """Payloads come with a claim; other rows stay closed, and so does every table."""
    with login(granted, WORKER) as dsn, psycopg.connect(dsn, autocommit=True) as worker:
        with granted.connect() as connection:
            connection.execute("select reproq_enqueue('app.secret', '[42]', p_queue_name => 'w')")
        claimed = worker.execute("select spec_json -> 'args' from reproq_claim('w', '{w}', 1, '1 min')").fetchone()
        assert claimed == ([42],)
        for statement in (
            "select reproq_enqueue('app.add')",
            "select * from task_runs",
            "update task_runs set status = 'READY'",
            "select reproq_limit_set('global', 1, 1)",
            "select reproq_pause('w')",
            "select * from reproq_audit()",
            "select * from reproq_limits",
        ):
            assert refused(worker, statement), statement


def test_roles_operator_operates_by_name_and_reads_no_payload(granted: Database) -> None:
    """Every view and operation, noted under the role that logged in; arguments and results stay closed."""
    with granted.connect() as connection:
        row = connection.execute("select reproq_enqueue('app.op', '[42]', p_queue_name => 'o')").fetchone()
        assert row is not None
    with login(granted, OPERATOR) as dsn, psycopg.connect(dsn, autocommit=True) as operator:
        for view in VIEWS:
            columns = [column.name for column in operator.execute(f"select * from {view}".encode()).description or ()]
            assert not {"spec_json", "return_json", "payload_json", "metadata_json", "lease_token"} & set(columns), view
        operator.execute("select * from reproq_explain(%s)", row)
        assert operator.execute("select reproq_cancel(%s)", row).fetchone() == ("cancelled",)
        last = operator.execute("select who, what from reproq_audit(1)").fetchone()
        assert last == (who(operator), "cancel")
        for statement in (
            "select * from task_runs",
            "select * from reproq_claim('w', '{o}', 1, '1 min')",
            "insert into reproq_audit_log (who, origin, what) values ('other', 'x', 'y')",
            "delete from reproq_audit_log",
        ):
            assert refused(operator, statement), statement


def test_operators_cannot_wipe_out_the_audit_log(granted: Database) -> None:
    """For them the last 30 days stay, by login or by SET ROLE; the owner of the log may delete all of it."""
    prune = "select reproq_prune_audit('{}')"
    with granted.connect() as owner, login(granted, OPERATOR) as dsn, psycopg.connect(dsn, autocommit=True) as operator:
        owner.execute("delete from reproq_audit_log")
        operator.execute("select reproq_pause('q')")
        for age in ("0", "29 days 23:00"):
            with pytest.raises(psycopg.Error, match="at least 30 days") as caught:
                operator.execute(prune.format(age).encode())
            assert caught.value.sqlstate == "RQ001"
        owner.execute("set role reproq_operator")
        with pytest.raises(psycopg.Error, match="at least 30 days"):
            owner.execute(prune.format("0").encode())
        owner.execute("reset role")
        owner.execute("update reproq_audit_log set at = at - interval '31 days'")
        assert operator.execute(prune.format("30 days").encode()).fetchone() == (1,)
        operator.execute("select reproq_pause('q')")
        assert owner.execute(prune.format("0").encode()).fetchone() == (2,)


def test_roles_observer_sees_numbers_only(granted: Database) -> None:
    """Queues, workers, limits and schedules; no task's row, no error text, no operation."""
    with login(granted, OBSERVER) as dsn, psycopg.connect(dsn, autocommit=True) as observer:
        for view, roles in VIEWS.items():
            assert refused(observer, f"select * from {view}") == (OBSERVER not in roles), view
        for statement in (
            "select spec_json from task_runs",
            "select reproq_enqueue('app.add')",
            "select * from reproq_explain(1)",
            "select * from reproq_audit()",
            "select payload_json from periodic_tasks",
        ):
            assert refused(observer, statement), statement


def test_django_writes_its_rows(database: Database) -> None:
    """Rows as its backend writes them go in, and direct updates of metadata and cancel flags, pauses and schedules."""
    give_rights(database)
    with login(database, DJANGO) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for row in django.rows():
            django.insert(connection, {**row, "queue_name": "django"})
        connection.execute(
            "update task_runs set metadata_json = '{}', cancel_requested = true, updated_at = now()"
            " where queue_name = 'django'"
        )
        connection.execute("insert into reproq_queue_controls (queue_name, paused) values ('django', true)")
        assert refused(connection, "select lease_token from task_runs")
        assert refused(connection, "update task_runs set lease_token = null")
        assert refused(connection, "select * from reproq_claim('w', '{django}', 1, '1 min')")


def test_roles_callers_names_change_nothing(granted: Database) -> None:
    """Temporary tables and a schema put first, with tables and functions named like ours, change nothing."""
    with granted.connect() as connection:
        grant_create = sql.SQL("grant create, temporary on database {} to public")
        connection.execute(grant_create.format(sql.Identifier(granted.name)))
        helpers = [
            f"create function evil.{name}({arguments}) returns void language plpgsql as"
            " $f$ begin raise exception 'led astray'; end $f$"
            for name, arguments in connection.execute(
                "select p.proname, array_to_string(p.proargtypes::regtype[], ', ') from pg_proc p"
                " where p.pronamespace = 'public'::regnamespace and p.proname ~ '^_?reproq_'"
                " and p.prorettype <> 'trigger'::regtype and p.prokind = 'f'"
            )
        ]
    assert len(helpers) > 50
    with (
        login(granted, PRODUCER, WORKER, OPERATOR) as dsn,
        psycopg.connect(dsn, autocommit=True) as attacker,
    ):
        attacker.execute("create schema evil")
        for statement in helpers:
            attacker.execute(statement.encode())
        for table in (
            "task_runs",
            "rate_limits",
            "reproq_audit_log",
            "reproq_unique_keys",
            "reproq_steps",
            "workflow_runs",
        ):
            attacker.execute(f"create temp table {table} (like pg_class)".encode())
            attacker.execute(f"create table evil.{table} (like pg_class)".encode())
        attacker.execute("set search_path = pg_temp, evil, public")
        found = attacker.execute("select public.reproq_enqueue('app.evil', p_queue_name => 'evil')").fetchone()
        claimed = attacker.execute(
            "select c.result_id, c.lease_token from public.reproq_claim('w', '{evil}', 1, '1 min') c"
        ).fetchone()
        assert claimed is not None
        assert found == (claimed[0],)
        answer = attacker.execute(
            'select f.answer from public.reproq_fail(array[%s], array[%s], array[\'{"kind": "app_error"}\'::jsonb],'
            " array[false]) f",
            claimed,
        ).fetchone()
        assert answer == ("failed",)
        assert attacker.execute("select public.reproq_retry(%s)", found).fetchone() == ("retried",)
        attacker.execute("select public.reproq_limit_set('queue:evil', 1, 1)")
        attacker.execute("select * from public.reproq_queues")
