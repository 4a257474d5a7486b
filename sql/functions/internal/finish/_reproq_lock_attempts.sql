create or replace function _reproq_lock_attempts(p_result_ids bigint[], p_lease_tokens uuid[]) returns text[]
language plpgsql volatile parallel unsafe
as $$
-- Locks what must be locked to end attempts, and says of each (task, token), in the order given:
--   ok       the attempt holds its task, and the row is locked for the caller
--   already  this attempt was the last to end, and its end stands: a repeated call, or it was failed or released for it
--   lost     the task belongs to another attempt or to none, was reclaimed to run again, or is gone
--   busy     another session holds the row just now, or one that waits for it: ask again
-- Locks: keys, workflow rows (waiting), then tasks by id and what waits for them (skip locked). Never waits
-- once it holds a task row.
declare
    v_left bigint[];
    v_answers text[];
begin
    v_left := _reproq_lock_shared(p_result_ids);
    v_answers := (
        with locked as materialized (
            select t.result_id, t.lease_token, t.last_token, t.last_answer
            from task_runs t
            where t.result_id = any (p_result_ids) and t.result_id <> all (v_left)
            order by t.result_id
            for no key update skip locked
        )
        select coalesce(array_agg(case
                when (a.id, a.token) in (select l.result_id, l.lease_token from locked l where l.lease_token is not null)
                    then case when a.turn = 1 then 'ok' else 'already' end
                when (a.id, a.token) in (select l.result_id, l.last_token from locked l where l.last_answer <> 'lost')
                    then 'already'
                when a.id in (select l.result_id from locked l) then 'lost'
                when t.lease_token = a.token then 'busy'
                when t.last_token = a.token and t.last_answer <> 'lost' then 'already'
                else 'lost' end order by a.place), '{}')
        from (select u.id, u.token, u.place, row_number() over (partition by u.id, u.token order by u.place) as turn
              from unnest(p_result_ids, p_lease_tokens) with ordinality as u (id, token, place)) a
        left join task_runs t on t.result_id = any (array[a.id]));
    if exists (select from task_runs t where t.result_id = any (p_result_ids) and num_nonnulls(t.workflow_id) = 1)
       or exists (select from task_runs c where c.parent_id = any (p_result_ids) and c.status || '' = 'WAITING')
    then
        v_answers := array(
            select case when u.answer = 'ok' and not _reproq_try_end(u.id) then 'busy' else u.answer end
            from unnest(p_result_ids, v_answers) with ordinality as u (id, answer, place)
            order by u.place);
    end if;
    return v_answers;
end
$$;

revoke execute on function _reproq_lock_attempts(bigint[], uuid[]) from public;
comment on function _reproq_lock_attempts(bigint[], uuid[]) is
    'Checks the fence of attempts and locks those that may end: ok, already, lost or busy for each. @0.1.0';
