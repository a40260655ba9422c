//! The sample directory: 3 organizations, 40 users, 60 workspaces with an agent each.

use serde_json::{Value, json};
use uuid::Uuid;

const ORGANIZATIONS: [(&str, &str); 3] =
    [("platform", "Platform"), ("research", "Research"), ("contractors", "Contractors")];
const FIRST_NAMES: [&str; 20] = [
    "ada", "bela", "chen", "dora", "emre", "fatima", "goran", "hana", "ivan", "jun", "kofi", "lena", "mateo", "nia",
    "omar", "priya", "quinn", "rosa", "sven", "tomo",
];
const PROJECTS: [&str; 6] = ["api", "web", "data", "infra", "mobile", "notebook"];
const USERS: usize = 40;
const WORKSPACES: usize = 60;

/// A user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) username: String,
    pub(crate) email: String,
}

/// A workspace and its agent.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) organization: usize,
    pub(crate) owner: usize,
    pub(crate) agent_id: Uuid,
    pub(crate) agent_token: String,
}

/// Who and what there is.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) organizations: Vec<(Uuid, String)>,
    pub(crate) users: Vec<User>,
    pub(crate) workspaces: Vec<Workspace>,
}

fn id(kind: u8, number: usize) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("connlog-demo-{kind}-{number}").as_bytes())
}

impl Directory {
    /// The sample. Only the agents' tokens differ from run to run.
    pub(crate) fn sample() -> Self {
        let organizations =
            ORGANIZATIONS.iter().enumerate().map(|(number, (name, _))| (id(0, number), (*name).to_owned())).collect();
        let users = (0..USERS)
            .map(|number| {
                let first = FIRST_NAMES[number % FIRST_NAMES.len()];
                let username = if number < FIRST_NAMES.len() {
                    first.to_owned()
                } else {
                    format!("{first}{}", number / FIRST_NAMES.len() + 1)
                };
                User { id: id(1, number), email: format!("{username}@example.com"), username }
            })
            .collect();
        let workspaces = (0..WORKSPACES)
            .map(|number| Workspace {
                id: id(2, number),
                name: format!("{}-{}", PROJECTS[number % PROJECTS.len()], number / PROJECTS.len() + 1),
                organization: number % ORGANIZATIONS.len(),
                owner: (number * 7) % USERS,
                agent_id: id(3, number),
                agent_token: format!("demo-agent-{}", Uuid::new_v4().simple()),
            })
            .collect();
        Self { organizations, users, workspaces }
    }

    /// The user whose token the demo hands out.
    pub(crate) fn auditor(&self) -> &str {
        &self.users[0].username
    }

    /// A workspace that no simulated agent speaks for.
    pub(crate) fn idle_workspace(&self) -> &Workspace {
        &self.workspaces[self.workspaces.len() - 1]
    }

    /// The directory file: one object a line.
    pub(crate) fn file(&self) -> String {
        let organizations = self.organizations.iter().zip(ORGANIZATIONS).map(|((id, name), (_, display_name))| {
            json!({"kind": "organization", "id": id, "name": name, "display_name": display_name, "icon": "/emojis/1f3e2.png"})
        });
        let users = self.users.iter().map(|user| {
            json!({"kind": "user", "id": user.id, "username": user.username, "email": user.email, "name": user.username,
                "status": "active", "login_type": "oidc"})
        });
        let workspaces = self.workspaces.iter().flat_map(|workspace| {
            let organization_id = self.organizations[workspace.organization].0;
            let owner_id = self.users[workspace.owner].id;
            [
                json!({"kind": "workspace", "id": workspace.id, "organization_id": organization_id, "owner_id": owner_id, "name": workspace.name}),
                json!({"kind": "agent", "id": workspace.agent_id, "workspace_id": workspace.id, "name": "main", "token": workspace.agent_token}),
            ]
        });
        let lines: Vec<Value> = organizations.chain(users).chain(workspaces).collect();
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        lines.join("\n")
    }
}
