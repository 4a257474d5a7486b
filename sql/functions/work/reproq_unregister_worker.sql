create or replace function reproq_unregister_worker(p_worker_id text, p_incarnation uuid) returns boolean
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Removes a worker that stops in good order from the registry, so that it no longer counts as live; false when its
-- row is gone, or belongs to a later start. Locks and deletes its row of reproq_workers.
begin
    delete from reproq_workers w where w.worker_id = p_worker_id and w.incarnation = p_incarnation;
    return found;
end
$$;

revoke execute on function reproq_unregister_worker(text, uuid) from public;
comment on function reproq_unregister_worker(text, uuid) is
    'Removes a worker that stops from the registry; false when this start of it was not there. @0.1.0';
