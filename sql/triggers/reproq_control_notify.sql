create or replace trigger reproq_control_ring
after insert or update or delete on reproq_queue_controls
for each row execute function reproq_ring_on_control();
