//! PostgreSQL: two clusters of Debian's package, one with logical decoding for the outbox.

use super::{Setup, port_of};
use crate::{
    certificates::{Certificates, USER},
    net::free_port,
    process::{Recipe, User, run},
};
use anyhow::{Context, Result};
use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
max_wal_size = 512MB
jit = off
recovery_init_sync_method = syncfs
timezone = 'UTC'
";
const LOGICAL: &str = "
wal_level = logical
max_replication_slots = 40
max_wal_senders = 40
max_slot_wal_keep_size = 1GB
track_commit_timestamp = on
";

const SECURE: &str = "
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
ssl_ca_file = 'ca.pem'
";

/// Starts a cluster: `postgres_main`, or `postgres_ai` with logical decoding.
pub fn start(setup: Setup, group: &str) -> Result<()> {
    let programs = programs()?;
    if !setup.revived(group)? {
        let data = data_folder(&setup.draft.folder.at(group))?;
        let user = postgres_user()?;
        fs::create_dir_all(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D"]).arg(&data);
        initdb.current_dir("/");
        if let Some(user) = user {
            chown(&data, Some(user.uid), Some(user.gid))?;
            std::os::unix::process::CommandExt::uid(&mut initdb, user.uid);
            std::os::unix::process::CommandExt::gid(&mut initdb, user.gid);
        }
        run(&mut initdb)?;
        let port = free_port();
        let mut settings = fs::read_to_string(data.join("postgresql.conf"))?;
        settings += SETTINGS;
        settings += if group == "postgres_ai" { LOGICAL } else { "" };
        if let Some(certificates) = setup.tls {
            secure(certificates, &data, user)?;
            settings += SECURE;
        }
        settings += &format!("port = {port}\nfsync = {}\n", if setup.durable { "on" } else { "off" });
        fs::write(data.join("postgresql.conf"), settings)?;
        let recipe =
            setup.recipe(group, group, programs.join("postgres"), vec!["-D".to_owned(), data.display().to_string()]);
        setup.draft.start(Recipe { user, cluster: Some(data.canonicalize()?), ..recipe })?;
        setup.address(group, format!("postgresql://postgres@127.0.0.1:{port}/postgres"))?;
    }
    let url = setup.draft.address(group).context("the cluster has no address")?;
    setup.wait(group, || run(Command::new(programs.join("pg_isready")).args(["-q", "-d", &url])).is_ok())?;
    if setup.tls.is_some() {
        let known = format!("select from pg_roles where rolname = '{USER}'");
        let make =
            format!("do $$ begin if not exists ({known}) then create role {USER} superuser login; end if; end $$");
        query(&url, &make)?;
    }
    Ok(())
}

/// The server's certificate beside its data, where its own user reads it; who comes as our user comes over TLS, with a certificate.
fn secure(certificates: &Certificates, data: &Path, user: Option<User>) -> Result<()> {
    for name in ["server.pem", "server.key", "ca.pem"] {
        let file = data.join(name);
        fs::copy(certificates.at(name), &file)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        user.map_or(Ok(()), |user| chown(&file, Some(user.uid), Some(user.gid)))?;
    }
    let rules = data.join("pg_hba.conf");
    let rest = fs::read_to_string(&rules)?;
    let own =
        format!("hostssl all {USER} all cert\nhostnossl all {USER} all reject\nhostssl replication {USER} all cert\n");
    fs::write(&rules, own + &rest).context("write the rules of the cluster")
}

/// Runs a statement in a database; its rows, one a line.
pub fn query(url: &str, statement: &str) -> Result<String> {
    let mut psql = Command::new(programs()?.join("psql"));
    run(psql.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, url]))
}

/// The newest server of Debian's packages, which lie beside each other by version; `MILLWRIGHT_RIG_POSTGRES` names another.
fn programs() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("MILLWRIGHT_RIG_POSTGRES") {
        return Ok(folder.into());
    }
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is missing (Debian package: postgresql)")?;
    let versions = versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let folders = versions.map(|version| (version, PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))));
    let newest = folders.filter(|(_, folder)| folder.join("initdb").exists()).max();
    Ok(newest.context("PostgreSQL has no server (Debian package: postgresql)")?.1)
}

/// PostgreSQL refuses to run as root, so root starts it as the package's own user.
fn postgres_user() -> Result<Option<User>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let account =
        accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == "postgres");
    let account = account.filter(|fields| fields.len() > 3).context("there is no user postgres")?;
    Ok(Some(User { uid: account[2].parse()?, gid: account[3].parse()? }))
}

/// The data folder: the wanted one, or where another user cannot reach it (a home folder closed to others) one among the temporary files.
fn data_folder(wanted: &Path) -> Result<PathBuf> {
    let own_user = !rustix::process::getuid().is_root();
    let open = |folder: &Path| fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o001 != 0);
    if own_user || wanted.ancestors().skip(1).all(open) {
        return Ok(wanted.to_owned());
    }
    let mut hash = DefaultHasher::new();
    wanted.hash(&mut hash);
    let folder = env::temp_dir().join(format!("millwright-{:016x}", hash.finish()));
    // Left by a rig whose folder was removed under it.
    let _ = fs::remove_dir_all(&folder);
    Ok(folder)
}

/// The port of a cluster, from its address.
pub fn port(url: &str) -> Result<u16> {
    port_of(url.rsplit_once('/').map_or(url, |(address, _)| address)).context("the cluster's address has no port")
}
