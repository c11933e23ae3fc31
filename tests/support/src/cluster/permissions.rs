//! The operator's permissions as users of its chart and manifests rely on them, and the API server's word on who may do
//! what.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::ControlPlane;

/// The verbs that are asked about.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// A kind of object, or a part of one, as RBAC names it.
#[derive(Debug, Clone, Copy)]
pub struct ApiResource {
    /// The API group; empty: the core group.
    pub group: &'static str,
    /// The plural name.
    pub resource: &'static str,
    /// A part such as `status`; empty: the object itself.
    pub subresource: &'static str,
}

impl ApiResource {
    /// The objects of a kind.
    #[must_use]
    pub const fn new(group: &'static str, resource: &'static str) -> Self {
        Self { group, resource, subresource: "" }
    }

    /// A part of the objects of a kind.
    #[must_use]
    pub const fn part(group: &'static str, resource: &'static str, subresource: &'static str) -> Self {
        Self { group, resource, subresource }
    }
}

/// What the operator may do in a namespace with migrations, by resource: all of these verbs and no other.
pub const OPERATOR_PERMISSIONS: [(ApiResource, &str); 13] = [
    (ApiResource::new("mailferry.io", "mailmigrations"), "get list watch"),
    (ApiResource::part("mailferry.io", "mailmigrations", "status"), "get patch"),
    (ApiResource::new("mailferry.io", "mailservers"), "get list watch"),
    (ApiResource::part("mailferry.io", "mailservers", "status"), "get patch"),
    (ApiResource::new("mailferry.io", "mailboxsyncs"), "get list watch create patch delete"),
    (ApiResource::part("mailferry.io", "mailboxsyncs", "status"), "get patch"),
    (ApiResource::new("", "pods"), "get list watch create patch delete"),
    (ApiResource::part("", "pods", "exec"), ""),
    (ApiResource::new("", "secrets"), "get create patch delete"),
    (ApiResource::new("", "configmaps"), "get"),
    (ApiResource::new("", "serviceaccounts"), "get create patch"),
    (ApiResource::part("", "serviceaccounts", "token"), ""),
    (ApiResource::new("events.k8s.io", "events"), "create patch"),
];

/// A user whom the API server is asked about.
#[derive(Debug, Clone, Copy)]
pub struct UserPermissions<'p> {
    plane: &'p ControlPlane,
    namespace: &'p str,
    account: &'p str,
}

impl ControlPlane {
    /// What the `ServiceAccount` of a namespace may do.
    #[must_use]
    pub const fn permissions<'p>(&'p self, namespace: &'p str, account: &'p str) -> UserPermissions<'p> {
        UserPermissions { plane: self, namespace, account }
    }
}

impl UserPermissions<'_> {
    /// The verbs that the user may use on objects of any name, in a namespace or, without one, across the cluster.
    pub async fn verbs(&self, namespace: Option<&str>, resource: ApiResource) -> String {
        let mut found = Vec::new();
        for verb in VERBS {
            if self.allow(verb, namespace, resource, None).await {
                found.push(verb);
            }
        }
        found.join(" ")
    }

    /// True when the user may use a verb on the object of this name, or on objects of any name.
    pub async fn allow(&self, verb: &str, namespace: Option<&str>, resource: ApiResource, name: Option<&str>) -> bool {
        let text = |text: &str| Some(text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{}:{}", self.namespace, self.account)),
                resource_attributes: Some(ResourceAttributes {
                    namespace: namespace.map(str::to_owned),
                    group: text(resource.group),
                    resource: text(resource.resource),
                    subresource: text(resource.subresource),
                    verb: text(verb),
                    name: name.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.plane.client());
        let answer = reviews.create(&PostParams::default(), &review).await.expect("SubjectAccessReview");
        answer.status.expect("a status").allowed
    }
}
