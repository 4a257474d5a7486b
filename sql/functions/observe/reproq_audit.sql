create or replace function reproq_audit(p_limit integer default 100, p_before_id bigint default null)
returns table (audit_id bigint, at timestamptz, who text, origin text, what text, details jsonb, why text)
language plpgsql stable parallel unsafe security definer
set search_path from current
as $$
#variable_conflict use_column
-- What operators did, latest first; p_before_id goes on from the last row of the call before. Raises RQ001 on a bad
-- p_limit.
begin
    perform _reproq_check_limit_argument('reproq_audit', p_limit);
    return query
    select a.audit_id, a.at, a.who, a.origin, a.what, a.details, a.why
    from reproq_audit_log a
    where p_before_id is null or a.audit_id < p_before_id
    order by a.audit_id desc
    limit p_limit;
end
$$;

revoke execute on function reproq_audit(integer, bigint) from public;
comment on function reproq_audit(integer, bigint) is
    'The audit log of operators'' actions, latest first: p_limit (100) rows, those before p_before_id. @0.1.0';
