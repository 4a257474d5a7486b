create or replace function _reproq_forget_steps() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- After tasks were deleted: their steps go, too.
begin
    if tg_op = 'TRUNCATE' then
        delete from reproq_steps;
    elsif exists (select from reproq_steps) then
        delete from reproq_steps s where s.result_id = any (array(select g.result_id from gone g));
    end if;
    return null;
end
$$;

revoke execute on function _reproq_forget_steps() from public;
comment on function _reproq_forget_steps() is 'Trigger: deletes the steps of deleted tasks. @0.1.0';
