-- Who may do what, by audience. Run by the owner of the schema, after the migrations and after each upgrade:
--   reproq-listen grants --dsn DSN            or           psql -v ON_ERROR_STOP=1 -1 -f sql/roles.sql
-- Makes the roles that are missing (they belong to the whole cluster, so no migration makes them) and brings the
-- rights of these roles on our objects to exactly what stands below. Running it again changes nothing.
--
--   reproq_worker    runs tasks and schedules: reproq-listen worker, beat
--   reproq_producer  enqueues
--   reproq_operator  cancels, retries, pauses, limits, schedules, prunes, explains; sees tasks and errors, no payloads
--   reproq_observer  sees queues, workers, limits, and schedules with their key and the state of their last task; no
--                    other task, no other key, no error
--   reproq_django    reads and writes the tables as Reproq Django does. Optional: make it before with
--                    create role reproq_django nologin;
--
-- All are NOLOGIN: services and people log in with roles of their own that are members (grant reproq_worker to app).
select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);
select pg_advisory_xact_lock(hashtextextended('reproq roles', 0));  -- two at once would trip over each other's catalog rows

do $$
declare
    v_role text;
begin
    foreach v_role in array array['reproq_worker', 'reproq_producer', 'reproq_operator', 'reproq_observer'] loop
        if to_regrole(v_role) is null then
            begin
                execute format('create role %I nologin', v_role);
            exception
                when duplicate_object or unique_violation then
                    null;  -- another session has just made it
                when insufficient_privilege then
                    raise exception 'the role % is missing, and % may not create roles', v_role, current_user
                        using errcode = '42501',
                              hint = 'Have an administrator run: create role reproq_worker nologin; create role '
                                     'reproq_producer nologin; create role reproq_operator nologin; '
                                     'create role reproq_observer nologin; -- then run this again.';
            end;
        end if;
    end loop;
end
$$;

-- A clean slate: what an earlier version granted and this one does not must go. PUBLIC may execute nothing of ours.
do $$
declare
    v_roles text := (
        select string_agg(quote_ident(r.rolname), ', ')
        from pg_roles r
        where r.rolname in ('reproq_worker', 'reproq_producer', 'reproq_operator', 'reproq_observer', 'reproq_django'));
    v_object record;
begin
    execute format('grant usage on schema %I to %s', current_schema(), v_roles);
    for v_object in
        select p.oid::regprocedure::text as name
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = current_schema() and p.proname ~ '^_?reproq_' and p.prokind = 'f'
          and pg_has_role(p.proowner, 'usage')
    loop
        execute format('revoke all on function %s from public, %s', v_object.name, v_roles);
    end loop;
    for v_object in
        select c.oid::regclass::text as name
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = current_schema() and c.relkind in ('r', 'v') and pg_has_role(c.relowner, 'usage')
          and (starts_with(c.relname, 'reproq_')
               or c.relname in ('task_runs', 'workflow_runs', 'rate_limits', 'periodic_tasks', 'periodic_occurrences'))
    loop
        execute format('revoke all on table %s from public, %s', v_object.name, v_roles);
    end loop;
end
$$;

-- All: which interfaces the schema serves, the channels to listen on, and its clock.
grant execute on function reproq_contract, reproq_channels, reproq_now
    to reproq_worker, reproq_producer, reproq_operator, reproq_observer;

-- Work, and the beat.
grant execute on function reproq_register_worker, reproq_unregister_worker, reproq_claim, reproq_heartbeat,
    reproq_complete, reproq_complete_and_claim, reproq_fail, reproq_release, reproq_reclaim, reproq_next_wake, reproq_save_metadata, reproq_results,
    reproq_complete_and_enqueue, reproq_steps_done, reproq_notify_on, reproq_notify_off, reproq_open_transactions
    to reproq_worker;
-- What a task may do in its own transaction, with the fence of its attempt: its application enqueues, too.
grant execute on function reproq_complete_one, reproq_step_save to reproq_worker, reproq_producer;
grant execute on function reproq_schedules_due, reproq_schedule_fire, reproq_next_beat to reproq_worker;

-- Produce.
grant execute on function reproq_enqueue, reproq_enqueue_many, reproq_chain, reproq_group, reproq_chord, reproq_result,
    reproq_spec_hash
    to reproq_producer;

-- Operate.
grant execute on function reproq_cancel, reproq_retry, reproq_retry_failed, reproq_replay, reproq_replay_by_hash,
    reproq_pause, reproq_resume, reproq_concurrency_set, reproq_limit_set, reproq_limit_rm, reproq_prune_expired, reproq_prune_finished,
    reproq_prune_audit, reproq_schedule_set, reproq_schedule_rm, reproq_explain, reproq_audit, reproq_spec_hash
    to reproq_operator;

-- Observe. A view reads its tables as its owner, but calls functions as the role that reads it: so also the function that the views call.
grant select on reproq_queues, reproq_limits, reproq_live_workers, reproq_dead_workers, reproq_schedules
    to reproq_operator, reproq_observer;
grant execute on function reproq_bucket_level to reproq_operator, reproq_observer;
grant execute on function reproq_metrics to reproq_worker, reproq_operator, reproq_observer;
grant select on reproq_live_workers to reproq_worker;  -- for reproq-listen health, which logs in as the worker does
grant select on reproq_tasks, reproq_failures, reproq_blocked, reproq_concurrency to reproq_operator;

-- Reproq Django: the columns of its models, none of ours: who could read a lease token could end a task in a
-- worker's name. Its admin deletes rows only if you let it: grant delete on task_runs, periodic_tasks to reproq_django;
do $$
begin
    if to_regrole('reproq_django') is null then
        return;
    end if;
    grant execute on function reproq_contract, reproq_now to reproq_django;
    grant select (result_id, backend_alias, queue_name, priority, run_after, spec_json, spec_hash, task_path, status,
            enqueued_at, started_at, last_attempted_at, finished_at, attempts, max_attempts, timeout_seconds, lock_key,
            concurrency_key, concurrency_limit, workflow_id, wait_count, worker_ids, return_json, errors_json,
            metadata_json, last_error, failed_at, leased_until, leased_by, logs_uri, artifacts_uri, expires_at,
            created_at, updated_at, cancel_requested, parent_id),
        insert (result_id, backend_alias, queue_name, priority, run_after, spec_json, spec_hash, task_path, status,
            enqueued_at, started_at, last_attempted_at, finished_at, attempts, max_attempts, timeout_seconds, lock_key,
            concurrency_key, concurrency_limit, workflow_id, wait_count, worker_ids, return_json, errors_json,
            metadata_json, last_error, failed_at, leased_until, leased_by, logs_uri, artifacts_uri, expires_at,
            created_at, updated_at, cancel_requested, parent_id),
        update (backend_alias, queue_name, priority, run_after, spec_json, spec_hash, task_path, status,
            enqueued_at, started_at, last_attempted_at, finished_at, attempts, max_attempts, timeout_seconds, lock_key,
            concurrency_key, concurrency_limit, workflow_id, wait_count, worker_ids, return_json, errors_json,
            metadata_json, last_error, failed_at, leased_until, leased_by, logs_uri, artifacts_uri, expires_at,
            created_at, updated_at, cancel_requested, parent_id)
        on task_runs to reproq_django;
    grant select, insert, update on periodic_tasks, reproq_queue_controls, workflow_runs to reproq_django;
    grant select on reproq_workers, rate_limits to reproq_django;
end
$$;
