create or replace function _reproq_forget_occurrences(p_name text, p_now timestamptz) returns void
language plpgsql volatile parallel unsafe
as $$
-- Deletes old occurrences of a schedule that is there: those beyond its latest 100 and 30 days, at most 200 a call.
-- They lie before its last run, so they cannot happen again.
begin
    delete from periodic_occurrences o
    where o.name = p_name and o.scheduled_at = any (array(
        select f.scheduled_at from periodic_occurrences f
        where f.name = p_name and f.scheduled_at < p_now - interval '30 days'
          and f.scheduled_at < (
              select k.scheduled_at from periodic_occurrences k
              where k.name = p_name order by k.scheduled_at desc offset 99 limit 1)
        order by f.scheduled_at
        limit 200));
end
$$;

revoke execute on function _reproq_forget_occurrences(text, timestamptz) from public;
comment on function _reproq_forget_occurrences(text, timestamptz) is 'Deletes old occurrences of a schedule. @0.1.0';
