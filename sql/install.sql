-- The one list of what there is, in the order in which it can be built. A new file gets a line here.
-- The steps in migrations/ read it until the first release. It also builds the schema in a new database, in plain psql:
--   psql -v ON_ERROR_STOP=1 -1 -f sql/install.sql            (schema: the session's current one, usually public)
-- Live databases use the steps (yoyo, or `reproq-listen migrate`), which end at the same schema and also adopt tables
-- that Reproq Django made.
select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- Tables.
\ir tables/task_runs.sql
\ir tables/workflow_runs.sql
\ir tables/rate_limits.sql
\ir tables/reproq_queue_controls.sql
\ir tables/reproq_concurrency_limits.sql
\ir tables/reproq_metrics_cache.sql
\ir tables/reproq_workers.sql
\ir tables/periodic_tasks.sql
\ir tables/periodic_occurrences.sql
\ir tables/reproq_audit_log.sql
\ir tables/reproq_unique_keys.sql
\ir tables/reproq_steps.sql

-- Internal: JSON values.
\ir functions/internal/json/_reproq_error_entry.sql
\ir functions/internal/json/_reproq_error_summary.sql
\ir functions/internal/json/_reproq_merge.sql
\ir functions/internal/json/_reproq_last_entries.sql
\ir functions/internal/json/_reproq_append_bounded.sql
\ir functions/internal/json/_reproq_canonical_json.sql

-- Internal: checks of arguments.
\ir functions/internal/validate/_reproq_require_read_committed.sql
\ir functions/internal/validate/_reproq_check_arrays.sql
\ir functions/internal/validate/_reproq_is_integer.sql
\ir functions/internal/validate/_reproq_is_instant.sql
\ir functions/internal/validate/_reproq_duration.sql
\ir functions/internal/validate/_reproq_max_spec_bytes.sql
\ir functions/internal/validate/_reproq_check_claim.sql
\ir functions/internal/validate/_reproq_check_limit_argument.sql

-- Observe.
\ir functions/observe/reproq_now.sql
\ir functions/observe/reproq_contract.sql
\ir functions/trigger/_reproq_channel.sql
\ir functions/observe/reproq_channels.sql
\ir functions/observe/reproq_bucket_level.sql
\ir functions/observe/reproq_audit.sql
\ir functions/observe/reproq_explain.sql
\ir functions/observe/_reproq_count_metrics.sql
\ir functions/observe/reproq_metrics.sql

-- Internal: lock keys and concurrency keys.
\ir functions/internal/keys/_reproq_key_hash.sql
\ir functions/internal/keys/_reproq_concurrency_limit.sql
\ir functions/internal/keys/_reproq_concurrency_used.sql
\ir functions/internal/keys/_reproq_free_places.sql
\ir functions/internal/keys/_reproq_ready_backlog.sql
\ir functions/internal/keys/_reproq_blocked_from_start.sql
\ir functions/internal/keys/_reproq_admit_keys.sql
\ir functions/internal/keys/_reproq_held_backlog.sql
\ir functions/internal/keys/_reproq_block_backlog.sql
\ir functions/internal/keys/_reproq_unblock.sql
\ir functions/internal/keys/_reproq_unblock_free.sql
\ir functions/internal/keys/_reproq_release_keys.sql
\ir functions/internal/keys/_reproq_lock_keys.sql

-- Internal: streams, buckets and candidates of a claim.
\ir functions/internal/claim/_reproq_effective_priority.sql
\ir functions/internal/claim/_reproq_is_busy.sql
\ir functions/internal/claim/_reproq_streams.sql
\ir functions/internal/claim/_reproq_earliest.sql
\ir functions/internal/claim/_reproq_bucket.sql
\ir functions/internal/claim/_reproq_open_streams.sql
\ir functions/internal/claim/_reproq_first_of_many.sql
\ir functions/internal/claim/_reproq_candidates.sql
\ir functions/internal/claim/_reproq_take_tokens.sql
\ir functions/internal/claim/_reproq_runs_nothing.sql
\ir functions/internal/claim/_reproq_spec_at_most.sql
\ir functions/internal/claim/_reproq_claim_pass.sql
\ir functions/internal/claim/_reproq_claim_merged.sql

-- Internal: ends of attempts and what follows from them.
\ir functions/internal/finish/_reproq_backoff.sql
\ir functions/internal/finish/_reproq_is_retryable.sql
\ir functions/internal/finish/_reproq_try_end.sql
\ir functions/internal/finish/_reproq_lock_workflows.sql
\ir functions/internal/finish/_reproq_lock_shared.sql
\ir functions/internal/finish/_reproq_set_final.sql
\ir functions/internal/finish/_reproq_propagate_to_steps.sql
\ir functions/internal/finish/_reproq_counts_are_recent.sql
\ir functions/internal/finish/_reproq_workflow_state.sql
\ir functions/internal/finish/_reproq_propagate_to_chords.sql
\ir functions/internal/finish/_reproq_propagate.sql
\ir functions/internal/finish/_reproq_finish.sql
\ir functions/internal/finish/_reproq_requeue.sql
\ir functions/internal/finish/_reproq_throttle.sql
\ir functions/internal/finish/_reproq_lock_attempts.sql

-- Produce.
\ir functions/produce/reproq_spec_hash.sql
\ir functions/produce/_reproq_task_hash.sql
\ir functions/produce/_reproq_unique_digest.sql
\ir functions/produce/_reproq_limit_key.sql
\ir functions/produce/_reproq_build_plain_spec.sql
\ir functions/produce/_reproq_build_spec.sql
\ir functions/produce/_reproq_read_tasks.sql
\ir functions/produce/_reproq_spec_bytes.sql
\ir functions/internal/validate/_reproq_task_problem.sql
\ir functions/internal/validate/_reproq_check_tasks.sql
\ir functions/produce/_reproq_blocks_at_insert.sql
\ir functions/produce/_reproq_insert_task.sql
\ir functions/produce/_reproq_insert_tasks.sql
\ir functions/produce/_reproq_hold_duplicate.sql
\ir functions/produce/_reproq_enqueue_deduped.sql
\ir functions/produce/_reproq_enqueue_unique.sql
\ir functions/produce/reproq_enqueue_many.sql
\ir functions/produce/reproq_enqueue.sql
\ir functions/produce/_reproq_insert_workflow.sql
\ir functions/produce/reproq_chain.sql
\ir functions/produce/reproq_group.sql
\ir functions/produce/reproq_chord.sql
\ir functions/produce/reproq_result.sql

-- Work.
\ir functions/work/_reproq_lost_error.sql
\ir functions/work/reproq_register_worker.sql
\ir functions/work/reproq_unregister_worker.sql
\ir functions/work/reproq_claim.sql
\ir functions/work/reproq_heartbeat.sql
\ir functions/work/reproq_complete.sql
\ir functions/work/reproq_complete_and_claim.sql
\ir functions/work/reproq_fail.sql
\ir functions/work/reproq_save_metadata.sql
\ir functions/work/reproq_results.sql
\ir functions/work/reproq_complete_and_enqueue.sql
\ir functions/work/reproq_complete_one.sql
\ir functions/work/reproq_step_save.sql
\ir functions/work/reproq_steps_done.sql
\ir functions/work/reproq_release.sql
\ir functions/work/_reproq_reclaim_leases.sql
\ir functions/work/_reproq_end_overdue.sql
\ir functions/work/_reproq_some_waiting.sql
\ir functions/work/_reproq_propagate_missed.sql
\ir functions/work/_reproq_end_orphans.sql
\ir functions/work/_reproq_remove_dead_workers.sql
\ir functions/work/_reproq_forget_throttles.sql
\ir functions/work/reproq_reclaim.sql
\ir functions/work/reproq_next_wake.sql
\ir functions/work/reproq_notify_on.sql
\ir functions/work/reproq_notify_off.sql
\ir functions/work/reproq_open_transactions.sql

-- Operate.
\ir functions/operate/_reproq_write_audit.sql
\ir functions/operate/reproq_cancel.sql
\ir functions/operate/_reproq_waits_for.sql
\ir functions/operate/_reproq_failed_dependents.sql
\ir functions/operate/_reproq_try_reopen.sql
\ir functions/operate/_reproq_reopen.sql
\ir functions/operate/_reproq_requeue_failed.sql
\ir functions/operate/reproq_retry.sql
\ir functions/operate/reproq_pause.sql
\ir functions/operate/reproq_resume.sql
\ir functions/operate/reproq_concurrency_set.sql
\ir functions/operate/_reproq_relabel.sql
\ir functions/operate/reproq_limit_set.sql
\ir functions/operate/reproq_limit_rm.sql
\ir functions/operate/reproq_retry_failed.sql
\ir functions/operate/reproq_replay.sql
\ir functions/operate/reproq_replay_by_hash.sql
\ir functions/operate/_reproq_is_needed.sql
\ir functions/operate/_reproq_delete_final.sql
\ir functions/operate/reproq_prune_expired.sql
\ir functions/operate/reproq_prune_finished.sql
\ir functions/operate/reproq_prune_audit.sql

-- Schedule.
\ir functions/schedule/reproq_schedule_set.sql
\ir functions/schedule/reproq_schedule_rm.sql
\ir functions/schedule/_reproq_enqueue_occurrence.sql
\ir functions/schedule/_reproq_schedule_since.sql
\ir functions/schedule/reproq_schedules_due.sql
\ir functions/schedule/reproq_schedule_fire.sql
\ir functions/schedule/reproq_next_beat.sql

-- Functions of triggers, and the notifications that they send.
\ir functions/trigger/_reproq_wait_lock.sql
\ir functions/trigger/_reproq_notify.sql
\ir functions/trigger/_reproq_notify_ended.sql
\ir functions/trigger/_reproq_notify_control.sql
\ir functions/trigger/_reproq_notify_claimable.sql
\ir functions/trigger/_reproq_coerce_foreign_write.sql
\ir functions/trigger/_reproq_after_foreign_insert.sql
\ir functions/trigger/_reproq_after_foreign_update.sql
\ir functions/trigger/_reproq_coerce_foreign_workflow.sql
\ir functions/trigger/_reproq_after_foreign_workflow.sql
\ir functions/trigger/_reproq_after_delete.sql
\ir functions/trigger/_reproq_forget_unique_keys.sql
\ir functions/trigger/_reproq_forget_steps.sql
\ir functions/trigger/_reproq_notify_on_control.sql
\ir functions/trigger/_reproq_schedule_made.sql
\ir functions/trigger/_reproq_schedule_written.sql
\ir functions/trigger/_reproq_notify_on_schedule.sql

-- Views.
\ir views/reproq_queues.sql
\ir views/reproq_failures.sql
\ir views/reproq_limits.sql
\ir views/reproq_concurrency.sql
\ir views/reproq_live_workers.sql
\ir views/reproq_dead_workers.sql
\ir views/reproq_blocked.sql
\ir views/reproq_tasks.sql
\ir views/reproq_schedules.sql

-- Triggers.
\ir triggers/reproq_control_notify.sql
\ir triggers/reproq_after_delete.sql
\ir triggers/reproq_unique_keys_delete.sql
\ir triggers/reproq_unique_keys_truncate.sql
\ir triggers/reproq_steps_delete.sql
\ir triggers/reproq_steps_truncate.sql
\ir triggers/reproq_before_foreign_insert.sql
\ir triggers/reproq_before_foreign_update.sql
\ir triggers/reproq_after_foreign_insert.sql
\ir triggers/reproq_after_foreign_update.sql
\ir triggers/reproq_before_foreign_workflow.sql
\ir triggers/reproq_after_foreign_workflow.sql
\ir triggers/reproq_schedule_1_made.sql
\ir triggers/reproq_schedule_1_written.sql
\ir triggers/reproq_schedule_notify_insert.sql
\ir triggers/reproq_schedule_notify_update.sql
