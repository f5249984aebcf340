//! Which server to talk to and how: flags, then environment, then the context of the configuration file, then defaults.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_api::{ErrorCode, Secret};
use rota_client::Access;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::output::Format;
use crate::trouble::{Result, Trouble};

/// Where a server is looked for if nothing else is said.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7600";
/// How long an answer is waited for if nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    /// The context that is used when none is named.
    current: Option<String>,
    /// Clusters by name.
    context: BTreeMap<String, Context>,
}

/// One cluster and how to talk to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Context {
    /// One address, or several separated by commas.
    server: Option<String>,
    /// The certificate of the cluster's authority: a file; relative to the configuration file.
    ca: Option<PathBuf>,
    /// Proves who one is. Nobody else may read the file then.
    token: Option<Secret>,
    /// The default of `--output`.
    output: Option<Format>,
    /// The default of `--timeout`.
    timeout: Option<rota_api::Duration>,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// A flag of this command.
    Flag,
    /// An environment variable.
    Environment(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

/// A setting and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Everything that was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The file that was looked for.
    pub(crate) path: Option<PathBuf>,
    pub(crate) context: Option<Setting<String>>,
    pub(crate) servers: Setting<Vec<String>>,
    pub(crate) output: Setting<Format>,
    pub(crate) timeout: Setting<Duration>,
    /// How to prove who one is, and whom to believe.
    pub(crate) access: Access,
}

impl Config {
    /// Whether somebody said which server to use.
    pub(crate) fn has_server(&self) -> bool {
        self.servers.origin != Origin::Default
    }

    /// Settles everything from the flags, the process's environment and the configuration file.
    pub(crate) fn load(global: &Global) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = path(&variable);
        let file = match &path {
            Some(path) => read(path, variable("ROTA_CONFIG").is_some())?,
            None => ConfigFile::default(),
        };
        let mut config = settle(global, &variable, path, &file)?;
        let named = config.context.as_ref().and_then(|context| file.context.get(&context.value));
        let beside = config.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let ca = variable("ROTA_CA").map(PathBuf::from);
        let ca = ca.or_else(|| Some(beside.join(named?.ca.as_ref()?)));
        if let Some(ca) = ca {
            let pem = std::fs::read_to_string(&ca).map_err(|error| Trouble::file(&ca, &error))?;
            config.access.authority = Some(pem);
        }
        Ok(config)
    }
}

/// What `rota login` keeps.
pub(crate) struct Kept<'a> {
    pub(crate) name: &'a str,
    pub(crate) servers: &'a [String],
    pub(crate) authority: Option<String>,
    pub(crate) token: &'a str,
}

/// Writes a context into the configuration file and makes it the current one. What else is there stays, but for comments.
pub(crate) fn keep(path: &Path, kept: &Kept<'_>) -> Result<()> {
    let failed = |error: std::io::Error| Trouble::file(path, &error);
    // Says what is wrong with the file, if anything is.
    read(path, false)?;
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(failed)?,
    };
    let mut file: toml::Table = toml::from_str(&text).unwrap_or_default();
    let dir = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut context = toml::Table::new();
    context.insert("server".to_owned(), kept.servers.join(",").into());
    if let Some(authority) = &kept.authority {
        let ca = format!("{}-ca.pem", kept.name);
        write_private(&dir.join(&ca), authority).map_err(failed)?;
        context.insert("ca".to_owned(), ca.into());
    }
    context.insert("token".to_owned(), kept.token.into());
    file.insert("current".to_owned(), kept.name.into());
    let contexts = file.entry("context").or_insert_with(|| toml::Table::new().into());
    if let Some(contexts) = contexts.as_table_mut() {
        let known = contexts.entry(kept.name).or_insert_with(|| toml::Table::new().into());
        if let Some(known) = known.as_table_mut() {
            known.extend(context);
        }
    }
    write_private(path, &file.to_string()).map_err(failed)
}

/// Takes the token out of a context. Returns whether there was one. What else is there stays, but for comments.
pub(crate) fn forget(path: &Path, name: &str) -> Result<bool> {
    let file = read(path, true)?;
    if !file.context.contains_key(name) {
        return Err(unknown_context(name, &file));
    }
    let failed = |error: std::io::Error| Trouble::file(path, &error);
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let mut table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let contexts = table.get_mut("context").and_then(toml::Value::as_table_mut);
    let context = contexts.and_then(|contexts| contexts.get_mut(name)?.as_table_mut());
    let known = context.is_some_and(|context| context.remove("token").is_some());
    write_private(path, &table.to_string()).map_err(failed)?;
    Ok(known)
}

/// Writes a file that nobody else may read, beside its place first.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Who uses this command line, as far as the environment says so in plain characters.
pub(crate) fn user() -> Option<String> {
    let plain = |name: &String| {
        let fits = 1..=rota_types::limits::NAME_BYTES_MAX;
        fits.contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok()).find(plain)
}

/// The configuration file's place: `ROTA_CONFIG`, or `rota/config.toml` below the user's configuration directory.
fn path(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = variable("ROTA_CONFIG") {
        return Some(path.into());
    }
    let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
    Some(base.join("rota/config.toml"))
}

fn read(path: &Path, required: bool) -> Result<ConfigFile> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(ConfigFile::default());
        }
        Err(error) => return Err(Trouble::file(path, &error)),
    };
    let parsed: Result<ConfigFile> = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| {
            text.get(..span.start).map_or(1, |text| text.matches('\n').count() + 1)
        });
        let message = format!("{}:{}: {}", path.display(), line.max(1), error.message());
        Trouble::new(ErrorCode::InvalidConfig, message)
    });
    let file = parsed?;
    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode()) & 0o777;
    if mode & 0o077 != 0 && file.context.values().any(|context| context.token.is_some()) {
        let message = format!("{} holds a token and can be read by others", path.display());
        let hint = format!(
            "run `chmod 600 {}`; if others may have read it, revoke the token",
            path.display()
        );
        return Err(Trouble::new(ErrorCode::InvalidConfig, message).hint(hint));
    }
    Ok(file)
}

fn settle(
    global: &Global,
    variable: &impl Fn(&str) -> Option<String>,
    path: Option<PathBuf>,
    file: &ConfigFile,
) -> Result<Config> {
    let from_file = || path.clone().map_or(Origin::Default, Origin::File);
    let flag =
        |value: &Option<String>| value.clone().map(|value| Setting { value, origin: Origin::Flag });
    let env = |name: &'static str| {
        variable(name).map(|value| Setting { value, origin: Origin::Environment(name) })
    };
    let named = flag(&global.context)
        .or_else(|| env("ROTA_CONTEXT"))
        .or_else(|| file.current.clone().map(|value| Setting { value, origin: from_file() }));
    let context = match &named {
        Some(name) => file
            .context
            .get(&name.value)
            .cloned()
            .ok_or_else(|| unknown_context(&name.value, file))?,
        None => Context::default(),
    };
    // Whoever names a context on the command line means its server, whatever the environment says.
    let in_context = || context.server.clone().map(|value| Setting { value, origin: from_file() });
    let chosen = || global.context.as_ref().and_then(|_| in_context());
    let server = flag(&global.server)
        .or_else(chosen)
        .or_else(|| env("ROTA_SERVER"))
        .or_else(in_context)
        .unwrap_or_else(|| Setting { value: DEFAULT_SERVER.to_owned(), origin: Origin::Default });
    let token = variable("ROTA_TOKEN").map(Secret).or_else(|| context.token.clone());
    let servers = server.value.split(',').map(str::trim).filter(|part| !part.is_empty());
    Ok(Config {
        servers: Setting { value: servers.map(str::to_owned).collect(), origin: server.origin },
        output: output(global, &env, context.output, from_file())?,
        timeout: timeout(global, &env, context.timeout, from_file())?,
        context: named,
        path,
        access: Access { authority: None, token },
    })
}

fn output(
    global: &Global,
    env: &impl Fn(&'static str) -> Option<Setting<String>>,
    context: Option<Format>,
    file: Origin,
) -> Result<Setting<Format>> {
    if let Some(value) = global.output {
        return Ok(Setting { value, origin: Origin::Flag });
    }
    if let Some(setting) = env("ROTA_OUTPUT") {
        let value = <Format as clap::ValueEnum>::from_str(&setting.value, true).map_err(|_| {
            Trouble::usage(format!("ROTA_OUTPUT={}: not an output format", setting.value))
        })?;
        return Ok(Setting { value, origin: setting.origin });
    }
    Ok(context.map_or(Setting { value: Format::Table, origin: Origin::Default }, |value| Setting {
        value,
        origin: file,
    }))
}

fn timeout(
    global: &Global,
    env: &impl Fn(&'static str) -> Option<Setting<String>>,
    context: Option<rota_api::Duration>,
    file: Origin,
) -> Result<Setting<Duration>> {
    let micros = |duration: rota_api::Duration| Duration::from_micros(duration.0.micros());
    if let Some(timeout) = global.timeout {
        return Ok(Setting { value: micros(timeout), origin: Origin::Flag });
    }
    if let Some(setting) = env("ROTA_TIMEOUT") {
        let parsed: rota_api::Duration =
            setting.value.parse().map_err(|error: rota_api::ScalarError| {
                Trouble::usage(format!("ROTA_TIMEOUT: {error}"))
            })?;
        return Ok(Setting { value: micros(parsed), origin: setting.origin });
    }
    let default = Setting { value: DEFAULT_TIMEOUT, origin: Origin::Default };
    Ok(context.map_or(default, |value| Setting { value: micros(value), origin: file }))
}

fn unknown_context(name: &str, file: &ConfigFile) -> Trouble {
    let known = file.context.keys().map(String::as_str);
    let hint = match rota_api::suggest::nearest(name, known.clone()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if file.context.is_empty() => "the configuration file has no contexts".to_owned(),
        None => format!("known contexts: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Trouble::new(ErrorCode::InvalidConfig, format!("there is no context \"{name}\"")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ConfigFile {
        let text = "current = \"a\"\n[context.a]\nserver = \"http://a:1\"\noutput = \"json\"\n\
                    [context.b]\nserver = \"http://b:1, http://b:2\"\ntimeout = \"5s\"\n";
        toml::from_str(text).expect("the text is a configuration")
    }

    fn settled(global: &Global, variables: &[(&str, &str)]) -> Result<Config> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        settle(global, &variable, Some("/c".into()), &file())
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_context() {
        let none = Global::default();
        let from_file = settled(&none, &[]).map(|config| (config.servers, config.output.value));
        let origin = Origin::File("/c".into());
        let servers = Setting { value: vec!["http://a:1".to_owned()], origin };
        assert_eq!(from_file, Ok((servers, Format::Json)));

        let variables = [("ROTA_SERVER", "http://e:1"), ("ROTA_OUTPUT", "yaml")];
        let from_env =
            settled(&none, &variables).map(|config| (config.servers.value, config.output.value));
        assert_eq!(from_env, Ok((vec!["http://e:1".to_owned()], Format::Yaml)));

        let flags = Global {
            server: Some("f:1".to_owned()),
            output: Some(Format::Wide),
            ..Global::default()
        };
        let from_flag =
            settled(&flags, &variables).map(|config| (config.servers.value, config.output.value));
        assert_eq!(from_flag, Ok((vec!["f:1".to_owned()], Format::Wide)));
    }

    #[test]
    fn contexts_are_chosen_by_name_and_unknown_ones_get_a_suggestion() {
        let b = Global { context: Some("b".to_owned()), ..Global::default() };
        let config = settled(&b, &[]).map(|config| (config.servers.value, config.timeout.value));
        let servers = vec!["http://b:1".to_owned(), "http://b:2".to_owned()];
        assert_eq!(config, Ok((servers, Duration::from_secs(5))));
        let c = Global { context: Some("bb".to_owned()), ..Global::default() };
        let hint = settled(&c, &[]).map_err(|trouble| trouble.hint);
        assert_eq!(hint, Err(Some("did you mean \"b\"?".to_owned())));
    }
}
