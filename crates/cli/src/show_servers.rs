//! How the servers of a cluster look to people.

use std::fmt::Write;

use rota_api::{ClusterStatus, ServerStatus};

use crate::output::{Column, Show, align};
use crate::screen::{Screen, clean};

impl Show for ClusterStatus {
    fn columns() -> Vec<Column<Self>> {
        vec![Column { title: "CLUSTER", wide: false, cell: |status, _| clean(&status.cluster) }]
    }

    fn id(&self) -> String {
        self.cluster.clone()
    }

    fn detail(&self, screen: &Screen) -> String {
        if self.log == "solo" {
            let line = format!("server {} runs alone, at log entry {}", self.server, self.index);
            return format!(
                "{line}\n  it is the only one: if it stops, nothing is decided until it is back"
            );
        }
        let short: String = self.cluster.chars().take(8).collect();
        let leader = match self.leader {
            Some(leader) => format!("server {leader} leads in term {}", self.term),
            None => "nobody leads at the moment".to_owned(),
        };
        let head = format!("cluster {}", clean(&short));
        let mut text = format!(
            "{} · {} · {leader} · log entry {} · level {}",
            screen.strong(&head),
            clean(&self.log),
            self.index,
            self.level
        );
        let mut rows = vec![
            ["  ID", "ROLE", "HEALTH", "LAG", "VERSION", "ADDRESS"].map(str::to_owned).to_vec(),
        ];
        rows.extend(self.servers.iter().map(row));
        write!(text, "\n{}", align(rows.into_iter())).ok();
        let behind: Vec<String> = self
            .servers
            .iter()
            .filter(|one| self.servers.iter().any(|other| other.level > one.level))
            .filter(|one| one.level <= self.level && !one.version.is_empty())
            .map(|one| one.id.to_string())
            .collect();
        if !behind.is_empty() {
            let behind = behind.join(", ");
            write!(text, "\n  level {} until these are upgraded as well: {behind}", self.level)
                .ok();
        }
        let plural = if self.tolerates == 1 { "" } else { "s" };
        write!(text, "\n  goes on with {} server{plural} down", self.tolerates).ok();
        text
    }
}

fn row(server: &ServerStatus) -> Vec<String> {
    let health = match server.healthy {
        Some(true) => "ok",
        Some(false) => "silent",
        None => "-",
    };
    let lag = server.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
    let version = if server.version.is_empty() { "-" } else { &server.version };
    vec![
        format!("  {}", server.id),
        server.role.name().to_owned(),
        health.to_owned(),
        lag,
        clean(version),
        clean(&server.address),
    ]
}
