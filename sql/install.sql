-- Builds the current schema in a new database, in plain psql:
--   psql -v ON_ERROR_STOP=1 -1 -f sql/install.sql            (schema: the session's current one, usually public)
-- For development and for reading in order. Live databases use the steps in migrations/ (yoyo, or
-- `reproq-listen migrate`), which end at the same schema and also adopt tables that Reproq Django made.
select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

\ir tables/task_runs.sql
\ir tables/workflow_runs.sql
\ir tables/rate_limits.sql
\ir tables/reproq_queue_controls.sql
\ir tables/reproq_workers.sql
\ir tables/periodic_tasks.sql
\ir tables/periodic_occurrences.sql
\ir tables/reproq_audit_log.sql

-- Leaves: used by other functions.
\ir functions/reproq_now.sql
\ir functions/reproq_contract.sql
\ir functions/reproq_require_read_committed.sql
\ir functions/reproq_key_hash.sql
\ir functions/reproq_bucket_level.sql
\ir functions/reproq_effective_priority.sql
\ir functions/reproq_backoff.sql
\ir functions/reproq_error_entry.sql
\ir functions/reproq_error_summary.sql
\ir functions/reproq_last_entries.sql
\ir functions/reproq_append_bounded.sql
\ir functions/reproq_check_arrays.sql
\ir functions/reproq_is_integer.sql
\ir functions/reproq_is_instant.sql
\ir functions/reproq_is_curable.sql
\ir functions/reproq_lost_error.sql
\ir functions/reproq_ring.sql
\ir functions/reproq_ring_control.sql

-- Keys.
\ir functions/reproq_concurrency_limit.sql
\ir functions/reproq_concurrency_used.sql
\ir functions/reproq_free_places.sql
\ir functions/reproq_ready_crowd.sql
\ir functions/reproq_admit_keys.sql
\ir functions/reproq_unpark.sql
\ir functions/reproq_unpark_free.sql
\ir functions/reproq_let_go_keys.sql
\ir functions/reproq_lock_keys.sql

-- Ends.
\ir functions/reproq_try_workflow.sql
\ir functions/reproq_try_end.sql
\ir functions/reproq_lock_workflows.sql
\ir functions/reproq_write_end.sql
\ir functions/reproq_settle_children.sql
\ir functions/reproq_settle_workflows.sql
\ir functions/reproq_settle.sql
\ir functions/reproq_finish.sql
\ir functions/reproq_give_back.sql
\ir functions/reproq_lock_attempts.sql

-- Produce.
\ir functions/reproq_canonical_json.sql
\ir functions/reproq_spec_hash.sql
\ir functions/reproq_build_spec.sql
\ir functions/reproq_check_task.sql
\ir functions/reproq_check_task_array.sql
\ir functions/reproq_build_tasks.sql
\ir functions/reproq_insert_tasks.sql
\ir functions/reproq_enqueue_many.sql
\ir functions/reproq_enqueue.sql
\ir functions/reproq_insert_workflow.sql
\ir functions/reproq_chain.sql
\ir functions/reproq_group.sql
\ir functions/reproq_chord.sql

-- Work.
\ir functions/reproq_register_worker.sql
\ir functions/reproq_streams.sql
\ir functions/reproq_bucket.sql
\ir functions/reproq_open_streams.sql
\ir functions/reproq_candidates.sql
\ir functions/reproq_take_tokens.sql
\ir functions/reproq_check_claim.sql
\ir functions/reproq_claim_pass.sql
\ir functions/reproq_claim.sql
\ir functions/reproq_heartbeat.sql
\ir functions/reproq_complete.sql
\ir functions/reproq_fail.sql
\ir functions/reproq_release.sql
\ir functions/reproq_reclaim_leases.sql
\ir functions/reproq_end_overdue.sql
\ir functions/reproq_settle_stragglers.sql
\ir functions/reproq_end_orphans.sql
\ir functions/reproq_reclaim.sql
\ir functions/reproq_next_wake.sql

-- Operate.
\ir functions/reproq_note.sql
\ir functions/reproq_audit.sql
\ir functions/reproq_cancel.sql
\ir functions/reproq_waits_for_others.sql
\ir functions/reproq_reopen.sql
\ir functions/reproq_retry.sql
\ir functions/reproq_pause.sql
\ir functions/reproq_resume.sql
\ir functions/reproq_check_limit.sql
\ir functions/reproq_relabel.sql
\ir functions/reproq_limit_set.sql
\ir functions/reproq_limit_rm.sql
\ir functions/reproq_check_limit_argument.sql
\ir functions/reproq_retry_failed.sql
\ir functions/reproq_replay.sql
\ir functions/reproq_replay_by_hash.sql
\ir functions/reproq_is_needed.sql
\ir functions/reproq_delete_final.sql
\ir functions/reproq_prune_expired.sql
\ir functions/reproq_prune_finished.sql
\ir functions/reproq_prune_audit.sql

-- Look.
\ir functions/reproq_is_allowed.sql
\ir functions/reproq_explain_waiting.sql
\ir functions/reproq_explain_ready.sql
\ir functions/reproq_explain.sql
\ir views/reproq_queues.sql
\ir views/reproq_failures.sql
\ir views/reproq_limits.sql
\ir views/reproq_live_workers.sql

-- Schedules.
\ir functions/reproq_check_schedule.sql
\ir functions/reproq_schedule_set.sql
\ir functions/reproq_schedule_rm.sql
\ir functions/reproq_schedule_backlog.sql
\ir functions/reproq_enqueue_occurrence.sql
\ir functions/reproq_schedules_due.sql
\ir functions/reproq_schedule_fire.sql
\ir functions/reproq_next_beat.sql

-- Triggers.
\ir functions/reproq_task_path.sql
\ir functions/reproq_task_normalise.sql
\ir functions/reproq_task_label.sql
\ir functions/reproq_task_park.sql
\ir functions/reproq_task_written_by_others.sql
\ir functions/reproq_task_deleted.sql
\ir functions/reproq_ring_on_insert.sql
\ir functions/reproq_ring_on_update.sql
\ir functions/reproq_ring_on_control.sql
\ir functions/reproq_schedule_written.sql
\ir functions/reproq_ring_on_schedule.sql
\ir triggers/reproq_1_path.sql
\ir triggers/reproq_2_normalise_insert.sql
\ir triggers/reproq_2_normalise_update.sql
\ir triggers/reproq_3_label.sql
\ir triggers/reproq_4_park.sql
\ir triggers/reproq_control_ring.sql
\ir triggers/reproq_deleted.sql
\ir triggers/reproq_ring_insert.sql
\ir triggers/reproq_ring_update.sql
\ir triggers/reproq_written_by_others.sql
\ir triggers/reproq_schedule_1_written.sql
\ir triggers/reproq_schedule_ring.sql
