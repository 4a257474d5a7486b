create or replace function reproq_lock_attempts(p_result_ids bigint[], p_lease_tokens uuid[]) returns text[]
language plpgsql volatile parallel unsafe
as $$
-- Locks what must be locked to end attempts, and says of each (task, token), in the order given:
--   ok       the attempt holds its task, and the row is locked for the caller
--   already  this attempt ended before, by its own worker's word (a repeated call)
--   lost     the task is another attempt's, nobody's, reclaimed, or gone
--   busy     somebody else holds the row just now: ask again
-- Locks: keys, workflow rows (waiting), then tasks by id (skip locked).
declare
    v_left bigint[] := reproq_lock_keys(p_result_ids);
begin
    perform reproq_lock_workflows(p_result_ids);
    return (
        with asked as materialized (
            select u.id, u.token, u.place, row_number() over (partition by u.id, u.token order by u.place) as turn
            from unnest(p_result_ids, p_lease_tokens) with ordinality as u (id, token, place)
        ), locked as materialized (
            select a.place, case
                when t.lease_token = a.token then case when a.turn = 1 then 'ok' else 'already' end
                when t.last_token = a.token and t.last_answer <> 'lost' then 'already'
                else 'lost' end as answer
            from asked a
            join task_runs t on t.result_id = a.id
            where a.id <> all (v_left)
            order by t.result_id
            for no key update of t skip locked
        ), others as (
            select a.place, case
                when t.lease_token = a.token then 'busy'
                when t.last_token = a.token and t.last_answer <> 'lost' then 'already'
                else 'lost' end as answer
            from asked a
            left join task_runs t on t.result_id = a.id
            where a.place not in (select l.place from locked l)
        )
        select coalesce(array_agg(w.answer order by w.place), '{}')
        from (select l.* from locked l union all select o.* from others o) w);
end
$$;

revoke execute on function reproq_lock_attempts(bigint[], uuid[]) from public;
comment on function reproq_lock_attempts(bigint[], uuid[]) is
    'Checks the fence of attempts and locks those that may end: ok, already, lost or busy for each. @v1';
