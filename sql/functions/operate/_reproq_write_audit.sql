create or replace function reproq_note(p_what text, p_details jsonb) returns void
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

revoke execute on function reproq_note(text, jsonb) from public;
comment on function reproq_note(text, jsonb) is 'Notes an operator''s action in the audit log. @v1';
