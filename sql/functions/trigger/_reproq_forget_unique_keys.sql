create or replace function _reproq_forget_unique_keys() returns trigger
language plpgsql volatile parallel unsafe security definer
set search_path from current
as $$
-- After tasks were deleted: their unique keys go, too. Not the key that a producer holds: it gives the key to another task.
begin
    if tg_op = 'TRUNCATE' then
        delete from reproq_unique_keys;
    elsif exists (select from reproq_unique_keys) then
        delete from reproq_unique_keys k
        where k.key_digest = any (array(
            select u.key_digest from reproq_unique_keys u
            where u.result_id = any (array(select g.result_id from gone g))
            for update skip locked));
    end if;
    return null;
end
$$;

revoke execute on function _reproq_forget_unique_keys() from public;
comment on function _reproq_forget_unique_keys() is 'Trigger: deletes the unique keys of deleted tasks. @0.1.0';
