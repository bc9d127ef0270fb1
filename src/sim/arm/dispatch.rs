//! What is asked of the world, and its answers in Azure's form.

use std::sync::PoisonError;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    handle::{Answer, Asked, State, pause},
    operations::CERTIFICATE_LENGTH,
    read::{self, BadField},
    render,
    target::{Order, Target},
};
use crate::{
    cloud::{Accepted, Cloud as _, CloudError, OperationState, Orchestration},
    model::{DiskId, GalleryId, ScaleSetId},
};

type Answered = Result<Answer, CloudError>;

impl State {
    pub(super) async fn dispatch(&self, asked: &Asked<'_>, target: Option<&Target>) -> Answered {
        let Some(target) = target else {
            let message = "The requested path is not simulated.";
            return Ok(Answer::error(StatusCode::NOT_FOUND, "InvalidResourceType", message));
        };
        match *asked.method {
            Method::GET => self.get(asked, target).await,
            Method::PUT => self.put_resource(asked, target).await,
            Method::PATCH => self.patch(asked, target).await,
            Method::POST => self.order(asked, target).await,
            Method::DELETE => self.delete(asked, target).await,
            _ => Ok(not_simulated()),
        }
    }

    async fn get(&self, asked: &Asked<'_>, target: &Target) -> Answered {
        let found = match target {
            Target::ScaleSet(id) => {
                // The port's read decides whether it is there and whether it may be asked now.
                let found = self.port().scale_set(id).await?;
                found.and_then(|_| self.port().raw_scale_set(id)).map(render::scale_set)
            }
            Target::ScaleSets(subscription) => {
                let all = self.port().scale_sets(subscription).await?;
                let raw = all.iter().filter_map(|set| self.port().raw_scale_set(&set.id)).map(render::scale_set);
                return Ok(self.page(asked, raw.collect()));
            }
            Target::Instance(id) => {
                let mut found = self.port().instance(id).await?.as_ref().map(render::instance);
                if let Some(instance) = found.as_mut().filter(|_| expanded(asked)) {
                    let power = self.port().power(id).await?;
                    instance["properties"]["instanceView"] = power.map_or(Value::Null, |it| render::view(&it.state));
                }
                found
            }
            Target::Instances(id) => return self.instances(asked, id, Orchestration::Uniform).await,
            Target::MachinesOf(group) => {
                // Nobody asks for all machines of a group.
                let asked_for = asked.query.get("$filter").and_then(|filter| read::member_of(filter));
                let Some(id) = asked_for.filter(|id| id.group() == *group) else {
                    return Ok(invalid(&BadField("$filter")));
                };
                return self.instances(asked, &id, Orchestration::Flexible).await;
            }
            Target::Machines(subscription) => {
                let all = self.port().machines(subscription).await?;
                return Ok(self.page(asked, all.iter().map(render::machine).collect()));
            }
            Target::Disk(id) => self.port().disk(id).await?.as_ref().map(render::disk),
            Target::Disks(group) => {
                let all = self.port().disks(group).await?;
                return Ok(self.page(asked, all.iter().map(render::disk).collect()));
            }
            Target::Snapshot(id) => self.port().snapshot(id).await?.as_ref().map(render::snapshot),
            Target::Snapshots(group) => {
                let all = self.port().snapshots(group).await?;
                return Ok(self.page(asked, all.iter().map(render::snapshot).collect()));
            }
            Target::Gallery(id) => self.port().gallery(id).await?.as_ref().map(render::gallery),
            Target::Definition(id) => self.port().definition(id).await?.as_ref().map(render::definition),
            Target::Version(id) => {
                let expanded =
                    asked.query.get("$expand").is_some_and(|it| it.eq_ignore_ascii_case("ReplicationStatus"));
                self.port().version(id).await?.map(|version| render::version(&version, expanded))
            }
            Target::Versions(id) => {
                let all = self.port().versions(id).await?;
                return Ok(self.page(asked, all.iter().map(|it| render::version(it, false)).collect()));
            }
            Target::Tags(_) | Target::TagsOfSet(_) | Target::Order(..) => return Ok(not_simulated()),
            Target::Autoscale(subscription) => {
                let all = self.port().autoscale(subscription).await?;
                return Ok(self.page(asked, all.iter().map(render::autoscale).collect()));
            }
            Target::Operation(guid) => return self.operation(asked, guid).await,
            Target::Permissions(scope) => {
                if self.otherwise(39) {
                    let message = "The client is not allowed to read permissions.";
                    return Ok(Answer::error(StatusCode::FORBIDDEN, "AuthorizationFailed", message));
                }
                if let Ok(gallery) = GalleryId::parse(scope)
                    && self.port().gallery(&gallery).await?.is_none()
                {
                    return Ok(not_found(asked));
                }
                let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Ok(self.page(asked, granted));
            }
        };
        Ok(found.map_or_else(|| not_found(asked), Answer::ok))
    }

    /// The instances of a scale set, with their views if those are asked for.
    async fn instances(&self, asked: &Asked<'_>, id: &ScaleSetId, orchestration: Orchestration) -> Answered {
        let all = self.port().instances(id, orchestration).await?;
        let mut all: Vec<Value> = all.iter().map(render::instance).collect();
        if expanded(asked) {
            let powers = self.port().powers(id, orchestration).await?;
            for (instance, powered) in all.iter_mut().zip(&powers) {
                instance["properties"]["instanceView"] = render::view(&powered.power);
            }
        }
        Ok(self.page(asked, all))
    }

    async fn put_resource(&self, asked: &Asked<'_>, target: &Target) -> Answered {
        let body = &asked.body;
        let accepted = match target {
            Target::Snapshot(id) => match read::snapshot(id.clone(), body) {
                Ok(want) => self.port().begin_snapshot(&want).await?,
                Err(field) => return Ok(invalid(&field)),
            },
            Target::Disk(id) => match read::disk(id.clone(), body) {
                Ok(want) => self.port().begin_copy_disk(&want).await?,
                Err(field) => return Ok(invalid(&field)),
            },
            Target::Gallery(id) => match read::gallery(body) {
                Ok(location) => self.port().begin_gallery(id, &location).await?,
                Err(field) => return Ok(invalid(&field)),
            },
            Target::Definition(id) => match read::definition(id.clone(), body) {
                Ok(want) => self.port().begin_definition(&want).await?,
                Err(field) => return Ok(invalid(&field)),
            },
            Target::Version(id) => match read::version(id.clone(), body) {
                Ok(want) => self.port().begin_version(&want).await?,
                Err(field) => return Ok(invalid(&field)),
            },
            Target::ScaleSet(_)
            | Target::ScaleSets(_)
            | Target::Instance(_)
            | Target::Order(..)
            | Target::Instances(_)
            | Target::MachinesOf(_)
            | Target::Machines(_)
            | Target::Disks(_)
            | Target::Snapshots(_)
            | Target::Versions(_)
            | Target::Tags(_)
            | Target::TagsOfSet(_)
            | Target::Autoscale(_)
            | Target::Operation(_)
            | Target::Permissions(_) => return Ok(not_simulated()),
        };
        let disks = matches!(target, Target::Snapshot(_) | Target::Disk(_));
        let status = if disks { StatusCode::ACCEPTED } else { StatusCode::CREATED };
        let mut echo = body.clone();
        echo["id"] = json!(asked.path_and_query.split('?').next());
        echo["properties"]["provisioningState"] = json!("Creating");
        Ok(self.begun(asked, target, status, echo, accepted))
    }

    async fn patch(&self, asked: &Asked<'_>, target: &Target) -> Answered {
        let accepted = match target {
            Target::ScaleSet(id) => {
                let if_match = asked.headers.get("if-match").and_then(|value| value.to_str().ok());
                self.port().patch_scale_set(id, if_match, &asked.body).await?
            }
            Target::Disk(id) => self.port().begin_tag_disk(id, &read::disk_tags(&asked.body)).await?,
            Target::Version(id) => match read::published(&asked.body) {
                Ok(published) => self.port().begin_publish(id, published).await?,
                Err(field) => return Ok(invalid(&field)),
            },
            Target::Tags(id) => {
                let (tag, value) = match read::tag_change(&asked.body) {
                    Ok(change) => change,
                    Err(field) => return Ok(invalid(&field)),
                };
                self.port().begin_tag_version(id, &tag, value.as_deref()).await?
            }
            Target::TagsOfSet(id) => {
                let (tag, value) = match read::tag_change(&asked.body) {
                    Ok(change) => change,
                    Err(field) => return Ok(invalid(&field)),
                };
                self.port().tag_scale_set(id, &tag, value).await?
            }
            Target::ScaleSets(_)
            | Target::Instance(_)
            | Target::Order(..)
            | Target::Instances(_)
            | Target::MachinesOf(_)
            | Target::Machines(_)
            | Target::Snapshot(_)
            | Target::Gallery(_)
            | Target::Definition(_)
            | Target::Disks(_)
            | Target::Snapshots(_)
            | Target::Versions(_)
            | Target::Autoscale(_)
            | Target::Operation(_)
            | Target::Permissions(_) => return Ok(not_simulated()),
        };
        let body = match target {
            // The whole model, as recorded: `Updating`, with a 200.
            Target::ScaleSet(id) => self.port().raw_scale_set(id).map_or(Value::Null, render::scale_set),
            Target::ScaleSets(_)
            | Target::Instance(_)
            | Target::Order(..)
            | Target::Instances(_)
            | Target::MachinesOf(_)
            | Target::Machines(_)
            | Target::Disk(_)
            | Target::Snapshot(_)
            | Target::Gallery(_)
            | Target::Definition(_)
            | Target::Version(_)
            | Target::Disks(_)
            | Target::Snapshots(_)
            | Target::Versions(_)
            | Target::Tags(_)
            | Target::TagsOfSet(_)
            | Target::Autoscale(_)
            | Target::Operation(_)
            | Target::Permissions(_) => json!({ "properties": { "provisioningState": "Updating" } }),
        };
        let late = matches!(target, Target::ScaleSet(_)) && self.otherwise(6);
        let status = if late { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(self.begun(asked, target, status, body, accepted))
    }

    async fn delete(&self, asked: &Asked<'_>, target: &Target) -> Answered {
        let accepted = match target {
            Target::Snapshot(id) => self.port().begin_delete_snapshot(id).await?,
            Target::Disk(id) => self.port().begin_delete_disk(id).await?,
            Target::Version(id) => self.port().begin_delete_version(id).await?,
            Target::Gallery(id) => self.port().begin_delete_gallery(id).await?,
            Target::Definition(id) => self.port().begin_delete_definition(id).await?,
            Target::ScaleSet(_)
            | Target::ScaleSets(_)
            | Target::Instance(_)
            | Target::Order(..)
            | Target::Instances(_)
            | Target::MachinesOf(_)
            | Target::Machines(_)
            | Target::Disks(_)
            | Target::Snapshots(_)
            | Target::Versions(_)
            | Target::Tags(_)
            | Target::TagsOfSet(_)
            | Target::Autoscale(_)
            | Target::Operation(_)
            | Target::Permissions(_) => return Ok(not_simulated()),
        };
        if accepted.operation.is_none() {
            return Ok(if self.otherwise(26) {
                Answer::error(StatusCode::BAD_REQUEST, "BadRequest", "There is nothing to delete.")
            } else {
                Answer { status: StatusCode::NO_CONTENT, headers: Vec::new(), body: Value::Null }
            });
        }
        Ok(self.begun(asked, target, StatusCode::ACCEPTED, Value::Null, accepted))
    }

    /// An assumption of docs/ASSUMPTIONS.md that does not hold in this world.
    fn otherwise(&self, number: u32) -> bool {
        self.world.world().otherwise(number)
    }

    /// An order to a machine. It is carried out a while later, and says so by the instance's view alone.
    async fn order(&self, asked: &Asked<'_>, target: &Target) -> Answered {
        let Target::Order(id, order) = target else { return Ok(not_simulated()) };
        let accepted = match order {
            Order::PowerOff => self.port().begin_power_off(id).await?,
            Order::Start => self.port().begin_start(id).await?,
            Order::Restart => self.port().begin_restart(id).await?,
            Order::Disks => {
                let first = |list: &str| asked.body[list].as_array().and_then(|list| list.first()).cloned();
                let named = |disk: &Value| disk["diskId"].as_str().and_then(|id| DiskId::parse(id).ok());
                let unnamed = || invalid(&BadField("diskId"));
                if let Some(disk) = first("dataDisksToAttach") {
                    let (Some(id_of_disk), Some(lun)) = (named(&disk), disk["lun"].as_u64()) else {
                        return Ok(unnamed());
                    };
                    self.port().begin_attach(id, &id_of_disk, u32::try_from(lun).unwrap_or(u32::MAX)).await?
                } else {
                    let Some(disk) = first("dataDisksToDetach").as_ref().and_then(named) else { return Ok(unnamed()) };
                    self.port().begin_detach(id, &disk).await?
                }
            }
        };
        let mut answer = self.begun(asked, target, StatusCode::ACCEPTED, Value::Null, accepted);
        answer.status = StatusCode::ACCEPTED;
        Ok(answer)
    }

    /// An accepted request: where it is from now on, and when to look again. Without an operation it is done already.
    fn begun(&self, asked: &Asked<'_>, target: &Target, status: StatusCode, body: Value, accepted: Accepted) -> Answer {
        let Some(operation) = accepted.operation else { return Answer::ok(body) };
        let subscription = asked.path_and_query.split('/').nth(2).unwrap_or_default();
        let base = if self.otherwise(8) { "https://elsewhere.example" } else { self.base.as_str() };
        let length = if self.otherwise(12) { 70_000 } else { CERTIFICATE_LENGTH };
        let urls = self.operations.give(base, subscription, target, operation, self.clock.new_id(), length);
        let mut headers = pause(accepted.retry_after.unwrap_or(self.poll_after));
        headers.push(("azure-asyncoperation", urls.status));
        // Scale sets and galleries name no Location for a PUT or PATCH; deletions and disks do.
        if status == StatusCode::ACCEPTED {
            headers.push(("location", urls.monitor));
        }
        Answer { status, headers, body }
    }

    async fn operation(&self, asked: &Asked<'_>, guid: &str) -> Answered {
        let (operation, monitor) = match self.operations.find(guid, asked.path_and_query) {
            Some(Ok(found)) => found,
            Some(Err(())) => {
                let message = "The signature of the operation's URL does not match.";
                return Ok(Answer::error(StatusCode::BAD_REQUEST, "InvalidOperationSignature", message));
            }
            None => return Ok(not_found(asked)),
        };
        let (status, error) = match self.port().operation(&operation).await? {
            OperationState::Unknown => return Ok(not_found(asked)),
            OperationState::Running(told) => {
                let headers = pause(told.unwrap_or(self.poll_after));
                return Ok(if monitor {
                    let status = if self.otherwise(10) { StatusCode::OK } else { StatusCode::ACCEPTED };
                    Answer { status, headers, body: Value::Null }
                } else {
                    Answer { status: StatusCode::OK, headers, body: json!({ "name": guid, "status": "InProgress" }) }
                });
            }
            OperationState::Succeeded => ("Succeeded", Value::Null),
            OperationState::Failed { code, message } => ("Failed", json!({ "code": code, "message": message })),
        };
        if monitor && error.is_null() {
            return Ok(Answer::ok(Value::Null));
        }
        // Of a failed operation the status URL says so with a 200, and so does its Location here.
        let end = self.clock.now().to_string();
        let mut body = json!({ "name": guid, "startTime": end, "endTime": end, "status": status });
        if error.is_object() {
            body["error"] = error;
        }
        Ok(Answer::ok(body))
    }

    /// One page of a list, and where the next one is.
    fn page(&self, asked: &Asked<'_>, mut all: Vec<Value>) -> Answer {
        let skip = asked.query.get("$skiptoken").and_then(|token| token.parse().ok()).unwrap_or(0);
        let rest = all.split_off(all.len().min(skip));
        let more = rest.len() > self.page_size;
        let mut body = json!({ "value": rest.into_iter().take(self.page_size).collect::<Vec<_>>() });
        if more {
            let path = asked.path_and_query.split('?').next().unwrap_or_default();
            let version = asked.query.get("api-version").map_or("", String::as_str);
            let next = skip + self.page_size;
            // The next page is of the same question.
            let same = |name: &str| {
                let value = asked.query.get(name).map(|value| value.replace(' ', "%20"));
                value.map_or_else(String::new, |value| format!("&{name}={value}"))
            };
            let (filter, expand) = (same("$filter"), same("$expand"));
            let next = format!("{}{path}?api-version={version}{filter}{expand}&%24skiptoken={next}", self.base);
            body["nextLink"] = json!(next);
        }
        Answer::ok(body)
    }
}

fn expanded(asked: &Asked<'_>) -> bool {
    asked.query.get("$expand").is_some_and(|it| it.eq_ignore_ascii_case("instanceView"))
}

fn not_found(asked: &Asked<'_>) -> Answer {
    let path = asked.path_and_query.split('?').next().unwrap_or_default();
    let message = format!("The Resource '{path}' was not found.");
    Answer::error(StatusCode::NOT_FOUND, "ResourceNotFound", &message)
}

fn not_simulated() -> Answer {
    Answer::error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "This call is not simulated.")
}

fn invalid(field: &BadField) -> Answer {
    let message = format!("The value of parameter {} is invalid.", field.0);
    Answer::error(StatusCode::BAD_REQUEST, "InvalidParameter", &message)
}
