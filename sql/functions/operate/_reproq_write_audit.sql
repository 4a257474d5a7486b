create or replace function _reproq_write_audit(p_what text, p_details jsonb) returns void
language plpgsql volatile parallel unsafe
as $$
-- Writes one row of the audit log, in the transaction of the action: who, from where, what, why.
begin
    insert into reproq_audit_log (at, who, origin, what, details, why)
    values (reproq_now(), session_user,
            concat_ws(' ', coalesce(host(inet_client_addr()), 'local'), nullif(current_setting('application_name', true), '')),
            p_what, p_details, nullif(current_setting('reproq.reason', true), ''));
end
$$;

revoke execute on function _reproq_write_audit(text, jsonb) from public;
comment on function _reproq_write_audit(text, jsonb) is 'Writes an operator''s action to the audit log. @0.1.0';
