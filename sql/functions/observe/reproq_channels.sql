create or replace function reproq_channels(out ready text, out control text)
language sql stable parallel safe security definer
set search_path from current
as $$
-- The names to LISTEN on. ready: tasks became claimable (payload: a queue, or empty for any). control: cancel, pause,
-- resume, a schedule was written.
select _reproq_channel('reproq_ready'), _reproq_channel('reproq_control')
$$;

revoke execute on function reproq_channels() from public;
comment on function reproq_channels() is 'Names of the channels on which this schema notifies workers. @0.1.0';
