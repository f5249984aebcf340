//! Tokens and notes for the audit, in the log, in snapshots and in the history.

use rota_core::token::{Grant, Joins, Note, Role, TokenCommand, TokenSpec};
use rota_types::Timestamp;

use crate::common::required;
use crate::{DecodeError, pb};

impl From<&TokenSpec> for pb::TokenSpec {
    fn from(spec: &TokenSpec) -> Self {
        use pb::token_spec::Grant as Kind;
        let grant = match spec.grant {
            Grant::Api(role) => Kind::Api(role_to(role).into()),
            Grant::Join { joins, uses_left } => {
                let joins = match joins {
                    Joins::Server => pb::Joins::Server,
                    Joins::Worker => pb::Joins::Worker,
                };
                Kind::Join(pb::JoinGrant { joins: joins.into(), uses_left })
            }
        };
        Self {
            id: spec.id.to_string(),
            hash: spec.hash.to_vec(),
            grant: Some(grant),
            name: spec.name.to_string(),
            expires_micros: spec.expires_at.map(|at| at.0),
            created_by: spec.created_by.to_string(),
            session_of: spec.session_of.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<pb::TokenSpec> for TokenSpec {
    type Error = DecodeError;

    fn try_from(message: pb::TokenSpec) -> Result<Self, DecodeError> {
        use pb::token_spec::Grant as Kind;
        let grant = match required("what a token grants", message.grant)? {
            Kind::Api(role) => Grant::Api(role_from(role)?),
            Kind::Join(join) => Grant::Join {
                joins: match pb::Joins::try_from(join.joins) {
                    Ok(pb::Joins::Server) => Joins::Server,
                    Ok(pb::Joins::Worker) => Joins::Worker,
                    Ok(pb::Joins::Unspecified) | Err(_) => {
                        return Err(DecodeError::Unknown("as what a token lets join"));
                    }
                },
                uses_left: join.uses_left,
            },
        };
        Ok(Self {
            id: message.id.into(),
            hash: message
                .hash
                .try_into()
                .map_err(|_| DecodeError::Inconsistent("a token's hash is not 32 bytes"))?,
            grant,
            name: message.name.into(),
            expires_at: message.expires_micros.map(Timestamp),
            created_by: message.created_by.into(),
            session_of: message.session_of.map(Into::into),
        })
    }
}

fn role_to(role: Role) -> pb::Role {
    match role {
        Role::Reader => pb::Role::Reader,
        Role::Submitter => pb::Role::Submitter,
        Role::Operator => pb::Role::Operator,
        Role::Admin => pb::Role::Admin,
    }
}

fn role_from(number: i32) -> Result<Role, DecodeError> {
    match pb::Role::try_from(number) {
        Ok(pb::Role::Reader) => Ok(Role::Reader),
        Ok(pb::Role::Submitter) => Ok(Role::Submitter),
        Ok(pb::Role::Operator) => Ok(Role::Operator),
        Ok(pb::Role::Admin) => Ok(Role::Admin),
        Ok(pb::Role::Unspecified) | Err(_) => Err(DecodeError::Unknown("a role")),
    }
}

impl From<&TokenCommand> for pb::TokenCommand {
    fn from(command: &TokenCommand) -> Self {
        use pb::token_command::Kind;
        let kind = match command {
            TokenCommand::Add(spec) => Kind::Add(spec.into()),
            TokenCommand::Revoke(id) => Kind::Revoke(id.to_string()),
            TokenCommand::Use(id) => Kind::Use(id.to_string()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::TokenCommand> for TokenCommand {
    type Error = DecodeError;

    fn try_from(message: pb::TokenCommand) -> Result<Self, DecodeError> {
        use pb::token_command::Kind;
        Ok(match required("a command about tokens", message.kind)? {
            Kind::Add(spec) => Self::Add(spec.try_into()?),
            Kind::Revoke(id) => Self::Revoke(id.into()),
            Kind::Use(id) => Self::Use(id.into()),
        })
    }
}

impl From<&Note> for pb::Note {
    fn from(note: &Note) -> Self {
        Self {
            who: note.who.to_string(),
            source: note.source.to_string(),
            action: note.action.to_string(),
            commands: note.commands,
        }
    }
}

impl From<pb::Note> for Note {
    fn from(message: pb::Note) -> Self {
        let pb::Note { who, source, action, commands } = message;
        Self { who: who.into(), source: source.into(), action: action.into(), commands }
    }
}
