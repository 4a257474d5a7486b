create or replace function reproq_save_metadata(p_result_ids bigint[], p_lease_tokens uuid[], p_metadata jsonb[])
returns table (result_id bigint, answer text)
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_incremental_sort = off
set enable_hashjoin = off set enable_mergejoin = off set enable_material = off set jit = off
as $$
#variable_conflict use_column
-- Sets top-level keys of metadata_json of running tasks, among them progress: what a task reports while it
-- runs. One row per element, in order: ok, lost (not yours any more), busy (ask again). Elements are objects; another
-- value, or one of more than 64 KiB, or that would make metadata_json larger than 1 MiB, is left out (lost). Raises
-- RQ001 on arrays of different lengths.
-- Locks: tasks by id (skip locked). Notifies no worker.
begin
    perform _reproq_check_arrays('reproq_save_metadata', p_result_ids,
                                array[cardinality(p_lease_tokens), cardinality(p_metadata)]);
    return query
    with asked as materialized (
        select u.id, u.token, u.metadata, u.place,
               coalesce(jsonb_typeof(u.metadata) = 'object' and octet_length(u.metadata::text) <= 65536, false) as fits
        from unnest(p_result_ids, p_lease_tokens, p_metadata) with ordinality as u (id, token, metadata, place)
    ), locked as materialized (
        select t.result_id, t.lease_token
        from task_runs t
        where t.result_id = any (p_result_ids)
        order by t.result_id
        for no key update skip locked
    ), judged as materialized (
        select a.*, a.id in (select l.result_id from locked l) as is_locked, (a.id, a.token) in (
            select l.result_id, l.lease_token from locked l where l.lease_token is not null) as is_held
        from asked a
    ), latest as materialized (
        select distinct on (a.id) a.id, a.metadata
        from judged a
        where a.fits and a.is_held
        order by a.id, a.place desc
    ), saved as (
        update task_runs t
        set metadata_json = _reproq_merge(t.metadata_json, s.metadata), updated_at = reproq_now(), revision = t.revision + 1
        from latest s
        where t.result_id = any (array[s.id])
          and pg_column_size(_reproq_merge(t.metadata_json, s.metadata)) <= 1048576
        returning t.result_id
    )
    select a.id, case
        when not a.fits then 'lost'
        when a.is_held then case when a.id in (select s.result_id from saved s) then 'ok' else 'lost' end
        when not a.is_locked and t.lease_token = a.token then 'busy'
        else 'lost' end
    from judged a
    left join task_runs t on t.result_id = any (array[a.id])
    order by a.place;
end
$$;

revoke execute on function reproq_save_metadata(bigint[], uuid[], jsonb[]) from public;
comment on function reproq_save_metadata(bigint[], uuid[], jsonb[]) is
    'Stores metadata of running tasks: ok, lost or busy for each. @0.1.0';
