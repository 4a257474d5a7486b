create or replace function _reproq_check_arrays(p_function text, p_result_ids bigint[], p_lengths integer[]) returns void
language plpgsql immutable parallel safe
as $$
-- The arrays of a work function belong together element by element. Raises RQ001 when one is null,
-- or has another length than p_result_ids.
begin
    if p_result_ids is null then
        raise exception '%: p_result_ids must not be null', p_function
            using errcode = 'RQ001', hint = 'Pass an empty array to do nothing.';
    end if;
    if cardinality(p_result_ids) <> any (p_lengths) or array_position(p_lengths, null) is not null then
        raise exception '%: all arrays must have the length of p_result_ids', p_function
            using errcode = 'RQ001',
                  detail = 'p_result_ids: ' || cardinality(p_result_ids) || ', the others: '
                           || array_to_string(p_lengths, ', ', 'null'),
                  hint = 'Pass one element per task in every array.';
    end if;
end
$$;

revoke execute on function _reproq_check_arrays(text, bigint[], integer[]) from public;
comment on function _reproq_check_arrays(text, bigint[], integer[]) is
    'Raises RQ001 unless all arrays of a call have the same length. @0.1.0';
