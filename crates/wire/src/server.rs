//! Servers in the log and in snapshots.

use rota_core::server::{ServerCommand, ServerSpec};
use rota_types::ServerId;

use crate::common::required;
use crate::{DecodeError, pb};

impl From<&ServerSpec> for pb::ServerSpec {
    fn from(spec: &ServerSpec) -> Self {
        Self {
            id: spec.id.0,
            address: spec.address.to_string(),
            version: spec.version.to_string(),
            level: spec.level,
        }
    }
}

impl From<pb::ServerSpec> for ServerSpec {
    fn from(message: pb::ServerSpec) -> Self {
        let pb::ServerSpec { id, address, version, level } = message;
        Self { id: ServerId(id), address: address.into(), version: version.into(), level }
    }
}

impl From<&ServerCommand> for pb::ServerCommand {
    fn from(command: &ServerCommand) -> Self {
        use pb::server_command::Kind;
        let kind = match command {
            ServerCommand::Announce(spec) => Kind::Announce(spec.into()),
            ServerCommand::Add { address } => Kind::Add(address.to_string()),
            ServerCommand::Remove(id) => Kind::Remove(id.0),
            ServerCommand::RaiseLevel(level) => Kind::RaiseLevel(*level),
            ServerCommand::Renew => Kind::Renew(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::ServerCommand> for ServerCommand {
    type Error = DecodeError;

    fn try_from(message: pb::ServerCommand) -> Result<Self, DecodeError> {
        use pb::server_command::Kind;
        Ok(match required("a command about servers", message.kind)? {
            Kind::Announce(spec) => Self::Announce(spec.into()),
            Kind::Add(address) => Self::Add { address: address.into() },
            Kind::Remove(id) => Self::Remove(ServerId(id)),
            Kind::RaiseLevel(level) => Self::RaiseLevel(level),
            Kind::Renew(_) => Self::Renew,
        })
    }
}
