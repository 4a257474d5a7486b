create or replace trigger reproq_control_notify
after insert or update or delete on reproq_queue_controls
for each row execute function _reproq_notify_on_control();
