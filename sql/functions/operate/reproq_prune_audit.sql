create or replace function reproq_prune_audit(
    p_older_than interval, p_limit integer default null, p_dry_run boolean default false
) returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Deletes audit rows older than p_older_than, oldest first; how many, or would be with p_dry_run. Only the
-- owner of the log may delete rows younger than 30 days: operators cannot wipe out what they did.
-- At most p_limit (null: 10,000) a call; call until 0.
-- Raises RQ001 on a p_older_than that is too short or a bad p_limit. Takes no lock but on what it deletes. Writes the audit log.
declare
    v_until timestamptz;
    v_caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);  -- current_user is the owner here
    v_shortest interval := '0';
    v_ids bigint[];
begin
    perform _reproq_check_limit_argument('reproq_prune_audit', p_limit);
    if not pg_has_role(v_caller, current_user, 'usage') then
        v_shortest := '30 days';
    end if;
    if p_older_than is null or p_older_than < v_shortest then
        raise exception 'reproq_prune_audit: p_older_than must be an interval of at least %, not %',
            v_shortest, coalesce(p_older_than::text, 'null')
            using errcode = 'RQ001', hint = 'Pass for example interval ''1 year''. Only the owner may delete younger rows.';
    end if;
    v_until := reproq_now() - p_older_than;
    v_ids := array(
        select a.audit_id from reproq_audit_log a
        where a.at < v_until
        order by a.at
        limit coalesce(p_limit, 10000));
    if p_dry_run or v_ids = '{}' then
        return cardinality(v_ids);
    end if;
    delete from reproq_audit_log a where a.audit_id = any (v_ids);
    perform _reproq_write_audit('prune_audit', jsonb_build_object('deleted', cardinality(v_ids), 'older_than', p_older_than));
    return cardinality(v_ids);
end
$$;

revoke execute on function reproq_prune_audit(interval, integer, boolean) from public;
comment on function reproq_prune_audit(interval, integer, boolean) is
    'Deletes audit rows older than p_older_than (30 days at least, but for the owner), p_limit (10,000) a call; how many: call until 0. @0.1.0';
