create or replace function reproq_replay_by_hash(p_spec_hash text)
returns table (source_id bigint, result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Replays the newest task with this hash of a spec (64 digits) that has ended, is READY or is RUNNING: the task it
-- copied, the new or active one, and the answer of reproq_replay. No row when no such task has the hash; a random hash
-- (32 digits) finds its task only until that has ended: replay it by its id. Locks: as reproq_replay.
declare
    v_digest bigint := hashtextextended(p_spec_hash, 0);
    v_finished bigint;
    v_active bigint;
begin
    select f.result_id into v_finished
    from (select t.result_id, t.spec_hash from task_runs t
          where hashtextextended(t.spec_hash, 0) between v_digest and v_digest
            and t.finished_at is not null and length(t.spec_hash) = 64
          order by hashtextextended(t.spec_hash, 0) desc, t.result_id desc) f
    where f.spec_hash = p_spec_hash
    limit 1;
    select t.result_id into v_active
    from task_runs t
    where t.spec_hash between p_spec_hash and p_spec_hash and t.status in ('READY', 'RUNNING')
    order by t.spec_hash
    limit 1;
    return query
    select s.result_id, r.result_id, r.answer
    from (select greatest(v_finished, v_active) as result_id) s
    cross join lateral reproq_replay(s.result_id) r
    where s.result_id is not null;
end
$$;

revoke execute on function reproq_replay_by_hash(text) from public;
comment on function reproq_replay_by_hash(text) is
    'Replays the newest task with the hash of a spec: its id, the new or active one, replayed or already_active; no row when there is none. @0.1.0';
