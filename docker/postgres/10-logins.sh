#!/bin/sh
# Runs once, when the database is created: the login roles. The owner migrates and grants; the other is for workers.
set -eu
secrets=${SECRETS:-/run/secrets}
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-reproq}" \
    --set owner_password="$(cat "$secrets/owner_password")" \
    --set worker_password="$(cat "$secrets/worker_password")" \
    --set database="${POSTGRES_DB:-reproq}" <<'SQL'
create role reproq_worker nologin;
create role reproq_producer nologin;
create role reproq_operator nologin;
create role reproq_observer nologin;

create role reproq_owner_login login password :'owner_password';
alter database :"database" owner to reproq_owner_login;
revoke create on schema public from public;
grant create on schema public to reproq_owner_login;

create role reproq_worker_login login password :'worker_password';
grant reproq_worker to reproq_worker_login;
SQL
