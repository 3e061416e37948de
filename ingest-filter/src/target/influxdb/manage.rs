//! Listing and deleting databases and buckets, as each version has it.

use http::{Method, StatusCode};
use serde_json::Value;

use super::query::query_value;
use super::{Api, Influxdb};
use crate::target::Database;

/// How many buckets 2.x lists at once.
const PAGE: usize = 100;
/// How many buckets are listed at most.
const BUCKETS_MAX: usize = 1_000_000;

impl Influxdb {
    /// All databases, or all buckets of our organisation.
    ///
    /// # Errors
    /// With what the server said instead.
    pub(super) async fn list(&self) -> Result<Vec<Database>, String> {
        let named = |name: &str| Database { name: name.to_owned(), id: name.to_owned() };
        match &self.api {
            Api::V1 { .. } => {
                let json = self.statement("SHOW DATABASES").await?;
                self.is_influxdb().await?;
                let rows = json["results"][0]["series"][0]["values"].as_array();
                let names = rows.into_iter().flatten().filter_map(|row| row[0].as_str());
                Ok(names.map(named).collect())
            }
            Api::V2 { org } => self.buckets(org).await,
            Api::V3 => {
                let path = "/api/v3/configure/database?format=json";
                let json = self.json(Method::GET, path).await?;
                let names = json.as_array().into_iter().flatten();
                Ok(names.filter_map(|row| row["iox::database"].as_str()).map(named).collect())
            }
        }
    }

    /// Deletes one.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(super) async fn remove(&self, database: &Database) -> Result<(), String> {
        let id = &database.id;
        match &self.api {
            Api::V1 { .. } => {
                let quoted = id.replace('\\', "\\\\").replace('"', "\\\"");
                self.statement(&format!("DROP DATABASE \"{quoted}\"")).await.map(|_| ())
            }
            Api::V2 { .. } => {
                let path = format!("/api/v2/buckets/{}", query_value(id));
                self.answered(Method::DELETE, &path).await.map(|_| ())
            }
            Api::V3 => {
                let path = format!("/api/v3/configure/database?db={}", query_value(id));
                self.answered(Method::DELETE, &path).await.map(|_| ())
            }
        }
    }

    /// The ID of an organisation of InfluxDB 2.x, which may have been configured in its place.
    pub(super) async fn organisation(&self, org: &str) -> String {
        let path = format!("/api/v2/orgs?org={}", query_value(org));
        let found = self.ask(Method::GET, &path, None).await.ok();
        let id = found.and_then(|(_, text)| {
            let list: serde_json::Value = serde_json::from_str(&text).ok()?;
            list["orgs"][0]["id"].as_str().map(str::to_owned)
        });
        id.unwrap_or_else(|| org.to_owned())
    }

    /// Whether the server has databases at all: VictoriaMetrics answers every statement with one
    /// and the same list of them, so nothing would seem to be stored of anybody.
    pub(super) async fn is_influxdb(&self) -> Result<(), String> {
        let json = self.statement("SHOW QUERIES").await?;
        match json["results"][0]["series"][0]["name"] == "databases" {
            true => {
                Err("the server has no databases, as VictoriaMetrics: there a tenant's series \
                         are deleted by their label of the database"
                    .to_owned())
            }
            false => Ok(()),
        }
    }

    async fn buckets(&self, org: &str) -> Result<Vec<Database>, String> {
        let mut all = Vec::new();
        while all.len() < BUCKETS_MAX {
            let (org, offset) = (query_value(org), all.len());
            let path = format!("/api/v2/buckets?org={org}&limit={PAGE}&offset={offset}");
            let json = self.json(Method::GET, &path).await?;
            let page = json["buckets"].as_array().ok_or("the server lists no buckets")?;
            all.extend(page.iter().filter_map(|bucket| {
                let text = |key: &str| bucket[key].as_str().map(str::to_owned);
                Some(Database { name: text("name")?, id: text("id")? })
            }));
            if page.len() < PAGE {
                break;
            }
        }
        Ok(all)
    }

    /// Runs a statement of 1.x, which says 200 to one that failed as well.
    async fn statement(&self, statement: &str) -> Result<Value, String> {
        let path = format!("/query?q={}", query_value(statement));
        let json = self.json(Method::POST, &path).await?;
        match json["results"][0]["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(json),
        }
    }

    pub(super) async fn json(&self, method: Method, path: &str) -> Result<Value, String> {
        let text = self.answered(method, path).await?;
        serde_json::from_str(&text).map_err(|_| "the answer is no JSON".to_owned())
    }

    async fn answered(&self, method: Method, path: &str) -> Result<String, String> {
        match self.ask(method, path, None).await {
            Ok((status, text)) if status.is_success() => Ok(text),
            Ok((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)) => {
                Err("the target refuses our login".to_owned())
            }
            Ok((status, text)) => Err(format!("{status}: {}", text.trim_end())),
            Err(error) => Err(error),
        }
    }
}
