create or replace function _reproq_task_hash(p_spec jsonb) returns text
language sql immutable parallel safe
as $$
-- reproq_spec_hash of a spec that _reproq_build_spec has just built. Its shape is known, so its keys need no sorting:
-- only args and kwargs are walked. Inlined.
select encode(sha256(convert_to(
    '{"args":' || _reproq_canonical_json(p_spec -> 'args')
    || ',"concurrency_key":' || (p_spec -> 'concurrency_key')::text
    || ',"concurrency_limit":' || (p_spec -> 'concurrency_limit')::text
    || ',"exec":{' || coalesce('"backoff_seconds":' || (p_spec #> '{exec,backoff_seconds}')::text || ',', '')
    || '"max_attempts":' || (p_spec #> '{exec,max_attempts}')::text
    || ',"timeout_seconds":' || (p_spec #> '{exec,timeout_seconds}')::text
    || '},"kwargs":' || _reproq_canonical_json(p_spec -> 'kwargs')
    || ',"lock_key":' || (p_spec -> 'lock_key')::text
    || ',"priority":' || (p_spec -> 'priority')::text
    || ',"provenance":{"code_ref":null,"pip_lock_hash":null},"queue_name":' || (p_spec -> 'queue_name')::text
    || ',"run_after":' || (p_spec -> 'run_after')::text
    || ',"takes_context":' || (p_spec -> 'takes_context')::text
    || ',"task_path":' || (p_spec -> 'task_path')::text || ',"v":1}', 'UTF8')), 'hex')
$$;

revoke execute on function _reproq_task_hash(jsonb) from public;
comment on function _reproq_task_hash(jsonb) is 'reproq_spec_hash of a spec of our own making, fast. @0.1.0';
