create or replace function _reproq_key_hash(p_key text) returns bigint
language sql stable strict parallel safe
as $$
-- The advisory lock of a key, written as blocked_on writes it: 'l:<lock key>' or 'c:<concurrency key>'.
-- 64 bits and a salt of our own and of the install schema: two installs in one database do not wait for each other.
-- A collision costs one poll, because claims only try.
select hashtextextended(p_key, hashtextextended(current_schema(), 7215690137))
$$;

revoke execute on function _reproq_key_hash(text) from public;
comment on function _reproq_key_hash(text) is 'Number of the advisory lock that guards a key (l:... or c:...). @0.1.0';
