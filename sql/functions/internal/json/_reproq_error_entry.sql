create or replace function _reproq_error_entry(
    p_error jsonb, p_at timestamptz, p_attempt integer, p_worker_id text, p_task_path text
) returns jsonb
language plpgsql stable parallel safe
as $$
-- One entry of errors_json: the caller's object with kind and message made sure of, and who, when
-- and which attempt added. Message at most 8,192 characters, traceback at most 65,536.
declare
    v_error jsonb := case when jsonb_typeof(p_error) = 'object' then p_error
                          else jsonb_build_object('message', coalesce(p_error #>> '{}', '')) end;
begin
    v_error := v_error || jsonb_build_object(
        'kind', coalesce(nullif(left(v_error ->> 'kind', 64), ''), 'app_error'),
        'message', left(coalesce(v_error ->> 'message', ''), 8192),
        'at', p_at,
        'attempt', p_attempt,
        'worker_id', p_worker_id,
        'task_path', p_task_path);
    if length(v_error ->> 'traceback') > 65536 then
        v_error := jsonb_set(v_error, '{traceback}', to_jsonb(right(v_error ->> 'traceback', 65536)));
    end if;
    return v_error;
end
$$;

revoke execute on function _reproq_error_entry(jsonb, timestamptz, integer, text, text) from public;
comment on function _reproq_error_entry(jsonb, timestamptz, integer, text, text) is
    'Shapes one entry of errors_json from what a caller reported. @0.1.0';
