create or replace function reproq_heartbeat(
    p_worker_id text, p_result_ids bigint[], p_lease_tokens uuid[], p_lease interval, p_incarnation uuid default null
) returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Renews leases: each ends p_lease from now, never earlier than before. One row per element, in order:
-- ok, cancel (renewed, but stop it: a cancel is requested), already (its success is stored: nothing to renew), lost (not
-- yours any more: stop it), busy (another session holds the row: ask again within a second). Then unknown for each task leased by this incarnation that the
-- call does not name: the reply of its claim was lost; when the claim is older than least(p_lease / 2, 20 s)
-- the task is released, uncharged. Marks the worker as seen. Raises RQ001 on bad arguments.
-- Locks: tasks by id, then its row of reproq_workers (skip locked). Never waits.
declare
    v_now timestamptz;
    v_unknown bigint[];
begin
    perform _reproq_check_arrays('reproq_heartbeat', p_result_ids, array[cardinality(p_lease_tokens)]);
    perform _reproq_check_claim('reproq_heartbeat', p_worker_id, array['-'], 1, p_lease, 0, null);
    v_now := reproq_now();
    return query
    with locked as materialized (
        select t.result_id, t.lease_token, t.cancel_requested
        from task_runs t
        where t.result_id = any (p_result_ids)
        order by t.result_id
        for no key update skip locked
    ), held as materialized (
        select l.result_id, (l.result_id, l.lease_token) in (
            select u.id, u.token from unnest(p_result_ids, p_lease_tokens) as u (id, token)) as is_held
        from locked l
        where l.lease_token is not null
    ), renewed as (
        update task_runs t
        set leased_until = greatest(t.leased_until, v_now + p_lease), revision = t.revision + 1
        where t.result_id = any (array(select h.result_id from held h where h.is_held))
    )
    select a.id, case
        when (a.id, a.token) in (select l.result_id, l.lease_token from locked l where l.lease_token is not null)
            then case when a.id in (select l.result_id from locked l where l.cancel_requested) then 'cancel' else 'ok' end
        when t.last_token = a.token and t.last_answer = 'ok' then 'already'
        when a.id in (select l.result_id from locked l) then 'lost'
        when t.lease_token = a.token then 'busy'
        else 'lost' end
    from unnest(p_result_ids, p_lease_tokens) with ordinality as a (id, token, place)
    left join task_runs t on t.result_id = any (array[a.id])
    order by a.place;

    select array_agg(h.result_id) into v_unknown
    from (
        select t.result_id, t.leased_incarnation
        from task_runs t
        where t.leased_by between p_worker_id and p_worker_id and t.leased_until is not null
        order by t.leased_by, t.lost_count
        offset 0) h
    where h.leased_incarnation is not distinct from p_incarnation
      and h.result_id <> all (array_remove(p_result_ids, null));
    if v_unknown is not null then
        return query select u.id, 'unknown'::text from unnest(v_unknown) as u (id);
        with locked as materialized (
            select t.result_id, t.status, t.leased_by, t.leased_incarnation, t.last_attempted_at, t.cancel_requested
            from task_runs t
            where t.result_id = any (v_unknown)
            order by t.result_id
            for no key update skip locked)
        select array_agg(l.result_id) into v_unknown from locked l
        where l.status = 'RUNNING' and not l.cancel_requested and l.leased_by = p_worker_id
          and l.leased_incarnation is not distinct from p_incarnation
          and l.last_attempted_at < v_now - least(p_lease / 2, interval '20 s');
        perform _reproq_requeue(v_unknown, null, null, 'released') where v_unknown is not null;
    end if;

    update reproq_workers w set last_seen_at = v_now
    where w.worker_id = any (array(
        select k.worker_id from reproq_workers k where k.worker_id = p_worker_id for no key update skip locked));
    if not found and not exists (select from reproq_workers w where w.worker_id = p_worker_id) then
        insert into reproq_workers (worker_id, hostname, concurrency, started_at, last_seen_at, incarnation)
        values (p_worker_id, '', 0, v_now, v_now, p_incarnation)
        on conflict (worker_id) do nothing;
    end if;
end
$$;

revoke execute on function reproq_heartbeat(text, bigint[], uuid[], interval, uuid) from public;
comment on function reproq_heartbeat(text, bigint[], uuid[], interval, uuid) is
    'Renews the leases of a worker in one call: ok, cancel, already, lost, busy or unknown for each. @0.1.0';
