create or replace function reproq_replay_by_hash(p_spec_hash text)
returns table (source_id bigint, result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
#variable_conflict use_column
-- Replays the newest task with this spec hash: the task it copied, the new or active one, and the answer of
-- reproq_replay. No row when no task has the hash. Reads all tasks: an operator's call. Locks: as reproq_replay.
begin
    return query
    select s.result_id, r.result_id, r.answer
    from (select t.result_id from task_runs t where t.spec_hash = p_spec_hash
          order by t.result_id desc limit 1) s
    cross join lateral reproq_replay(s.result_id) r;
end
$$;

revoke execute on function reproq_replay_by_hash(text) from public;
comment on function reproq_replay_by_hash(text) is
    'Replays the newest task with a spec hash: its id, the new or active one, replayed or already_active; no row when there is none. @0.1.0';
