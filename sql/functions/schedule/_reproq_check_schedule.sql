create or replace function _reproq_check_schedule(
    p_name text, p_cron_expr text, p_time_zone text, p_misfire text, p_overlap text
) returns void
language plpgsql stable parallel safe
as $$
-- The arguments of reproq_schedule_set that are not a task's. Raises RQ001 that names the argument and the remedy.
-- Of cron_expr only the shape is checked; the beat, which computes it, decides.
begin
    if coalesce(p_name, '') = '' or octet_length(p_name) > 512 then
        raise exception 'reproq_schedule_set: p_name must have 1 to 512 bytes'
            using errcode = 'RQ001', hint = 'Name the schedule, for example nightly-report.';
    elsif coalesce(p_cron_expr, '') !~ '^[[:space:]]*([^[:space:]]+[[:space:]]+){4}[^[:space:]]+[[:space:]]*$|^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$'
        or octet_length(p_cron_expr) > 1000 then
        raise exception 'reproq_schedule_set: p_cron_expr must have five fields, such as ''*/5 * * * *'', not %',
            coalesce(quote_literal(left(p_cron_expr, 60)), 'null')
            using errcode = 'RQ001', hint = 'Minute, hour, day of month, month, day of week; or @daily and the like.';
    elsif not exists (select from pg_timezone_names z where z.name = p_time_zone) then
        raise exception 'reproq_schedule_set: p_time_zone must be an IANA name such as Europe/Vienna, not %',
            coalesce(quote_literal(left(p_time_zone, 60)), 'null')
            using errcode = 'RQ001', hint = 'See: select name from pg_timezone_names';
    elsif coalesce(p_misfire, '') not in ('skip', 'one', 'all') then
        raise exception 'reproq_schedule_set: p_misfire must be skip, one or all'
            using errcode = 'RQ001', hint = 'What to do with runs that were missed: one makes up for the last of them.';
    elsif coalesce(p_overlap, '') not in ('allow', 'skip', 'queue_one') then
        raise exception 'reproq_schedule_set: p_overlap must be allow, skip or queue_one'
            using errcode = 'RQ001', hint = 'What to do while an earlier run has not ended.';
    end if;
end
$$;

revoke execute on function _reproq_check_schedule(text, text, text, text, text) from public;
comment on function _reproq_check_schedule(text, text, text, text, text) is
    'Raises RQ001 on arguments that reproq_schedule_set cannot work with. @0.1.0';
