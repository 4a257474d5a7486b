create or replace function reproq_prune_audit(p_older_than interval, p_limit integer default null) returns bigint
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Deletes audit rows older than p_older_than, oldest first, at most p_limit (null: 10,000); how many; call until 0.
-- Raises RQ001 on a negative p_older_than or a bad p_limit. Takes no lock but on what it deletes. Writes the audit log.
declare
    v_count bigint;
begin
    perform reproq_check_limit_argument('reproq_prune_audit', p_limit);
    if p_older_than is null or p_older_than < interval '0' then
        raise exception 'reproq_prune_audit: p_older_than must be an interval from 0 on, not %',
            coalesce(p_older_than::text, 'null')
            using errcode = 'RQ001', hint = 'Pass for example interval ''1 year''.';
    end if;
    delete from reproq_audit_log a
    where a.audit_id = any (array(
        select o.audit_id from reproq_audit_log o
        where o.at < reproq_now() - p_older_than
        order by o.at
        limit coalesce(p_limit, 10000)));
    get diagnostics v_count = row_count;
    if v_count > 0 then
        perform reproq_note('prune_audit', jsonb_build_object('deleted', v_count, 'older_than', p_older_than));
    end if;
    return v_count;
end
$$;

revoke execute on function reproq_prune_audit(interval, integer) from public;
comment on function reproq_prune_audit(interval, integer) is 'Deletes old rows of the audit log; returns how many. @v1';
