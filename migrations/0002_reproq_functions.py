"""The first release of every function."""

from pathlib import Path

from yoyo import step

__depends__ = {"0001_reproq_tables"}
RELEASED = Path(__file__).resolve().parents[1] / "sql" / "released"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
FUNCTIONS = (
    "reproq_now",
    "reproq_contract",
    "reproq_require_read_committed",
    "reproq_key_hash",
    "reproq_bucket_level",
    "reproq_effective_priority",
    "reproq_backoff",
    "reproq_error_entry",
    "reproq_error_summary",
    "reproq_last_entries",
    "reproq_append_bounded",
    "reproq_check_arrays",
    "reproq_is_integer",
    "reproq_is_instant",
    "reproq_is_curable",
    "reproq_lost_error",
    "reproq_ring",
    "reproq_ring_control",
    "reproq_concurrency_limit",
    "reproq_concurrency_used",
    "reproq_free_places",
    "reproq_ready_crowd",
    "reproq_admit_keys",
    "reproq_unpark",
    "reproq_unpark_free",
    "reproq_let_go_keys",
    "reproq_lock_keys",
    "reproq_try_workflow",
    "reproq_try_end",
    "reproq_lock_workflows",
    "reproq_write_end",
    "reproq_settle_children",
    "reproq_settle_workflows",
    "reproq_settle",
    "reproq_finish",
    "reproq_give_back",
    "reproq_lock_attempts",
    "reproq_canonical_json",
    "reproq_spec_hash",
    "reproq_build_spec",
    "reproq_check_task",
    "reproq_check_task_array",
    "reproq_build_tasks",
    "reproq_insert_tasks",
    "reproq_enqueue_many",
    "reproq_enqueue",
    "reproq_insert_workflow",
    "reproq_chain",
    "reproq_group",
    "reproq_chord",
    "reproq_register_worker",
    "reproq_streams",
    "reproq_bucket",
    "reproq_open_streams",
    "reproq_candidates",
    "reproq_take_tokens",
    "reproq_check_claim",
    "reproq_claim_pass",
    "reproq_claim",
    "reproq_heartbeat",
    "reproq_complete",
    "reproq_fail",
    "reproq_release",
    "reproq_reclaim_leases",
    "reproq_end_overdue",
    "reproq_settle_stragglers",
    "reproq_end_orphans",
    "reproq_reclaim",
    "reproq_next_wake",
    "reproq_note",
    "reproq_audit",
    "reproq_cancel",
    "reproq_waits_for_others",
    "reproq_reopen",
    "reproq_retry",
    "reproq_pause",
    "reproq_resume",
    "reproq_check_limit",
    "reproq_relabel",
    "reproq_limit_set",
    "reproq_limit_rm",
    "reproq_check_limit_argument",
    "reproq_retry_failed",
    "reproq_replay",
    "reproq_replay_by_hash",
    "reproq_is_needed",
    "reproq_delete_final",
    "reproq_prune_expired",
    "reproq_prune_finished",
    "reproq_prune_audit",
    "reproq_is_allowed",
    "reproq_explain_waiting",
    "reproq_explain_ready",
    "reproq_explain",
    "reproq_check_schedule",
    "reproq_schedule_set",
    "reproq_schedule_rm",
    "reproq_schedule_backlog",
    "reproq_enqueue_occurrence",
    "reproq_schedules_due",
    "reproq_schedule_fire",
    "reproq_next_beat",
    "reproq_task_path",
    "reproq_task_normalise",
    "reproq_task_label",
    "reproq_task_park",
    "reproq_task_written_by_others",
    "reproq_task_deleted",
    "reproq_ring_on_insert",
    "reproq_ring_on_update",
    "reproq_ring_on_control",
    "reproq_schedule_written",
    "reproq_ring_on_schedule",
)


def apply(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    for name in FUNCTIONS:
        cursor.execute((RELEASED / f"{name}.v1.sql").read_text())


def rollback(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    for name in reversed(FUNCTIONS):
        cursor.execute(f"drop function if exists {name}")


step(apply, rollback)
