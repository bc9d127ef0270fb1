//! Azure's clouds: one is a resource manager, an authority and an audience that belong together.
//!
//! Sources: Microsoft's "Azure Government developer guide" and "Azure China developer guide", and the environments that
//! cloud-provider-azure knows by name.

/// A cloud that Microsoft or 21Vianet runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownCloud {
    /// Azure.
    Public,
    /// Azure US Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
}

/// Where a cloud is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The resource manager's base URL.
    pub resource_manager: String,
    /// The authority that gives tokens.
    pub authority: String,
    /// Whom tokens are for.
    pub audience: String,
}

impl KnownCloud {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGovernment, Self::China];

    /// The name in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::UsGovernment => "us-government",
            Self::China => "china",
        }
    }

    /// Where it is.
    #[must_use]
    pub fn endpoints(self) -> Endpoints {
        let (manager, authority) = match self {
            Self::Public => ("https://management.azure.com", "https://login.microsoftonline.com"),
            Self::UsGovernment => ("https://management.usgovcloudapi.net", "https://login.microsoftonline.us"),
            Self::China => ("https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
        };
        Endpoints { resource_manager: manager.into(), authority: authority.into(), audience: manager.into() }
    }

    /// Every host by which it is known, old ones too.
    fn hosts(self) -> &'static [&'static str] {
        match self {
            Self::Public => &[
                "management.azure.com",
                "management.core.windows.net",
                "login.microsoftonline.com",
                "login.microsoft.com",
                "login.windows.net",
                "sts.windows.net",
            ],
            Self::UsGovernment => &[
                "management.usgovcloudapi.net",
                "management.core.usgovcloudapi.net",
                "login.microsoftonline.us",
                "login-us.microsoftonline.com",
            ],
            Self::China => &[
                "management.chinacloudapi.cn",
                "management.core.chinacloudapi.cn",
                "login.chinacloudapi.cn",
                "login.partner.microsoftonline.cn",
            ],
        }
    }

    /// The cloud that a URL belongs to, if it is one of these; a region's own host of a resource manager or authority too.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split(['/', ':', '?']).next().unwrap_or_default().to_ascii_lowercase();
        Self::ALL.into_iter().find(|cloud| {
            cloud
                .hosts()
                .iter()
                .any(|known| host == *known || host.strip_suffix(known).is_some_and(|it| it.ends_with('.')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_belongs_to_one_cloud_or_none() {
        let rows = [
            ("https://management.azure.com", Some(KnownCloud::Public)),
            ("https://westeurope.management.azure.com/", Some(KnownCloud::Public)),
            ("https://LOGIN.microsoftonline.us/", Some(KnownCloud::UsGovernment)),
            ("https://login.partner.microsoftonline.cn", Some(KnownCloud::China)),
            ("https://management.local.azurestack.external", None),
            ("https://evilmanagement.azure.com", None),
            ("https://management.azure.com.evil.example", None),
            ("https://127.0.0.1:4433", None),
        ];
        for (url, cloud) in rows {
            assert_eq!(KnownCloud::of_url(url), cloud, "{url}");
        }
        for cloud in KnownCloud::ALL {
            let Endpoints { resource_manager, authority, audience } = cloud.endpoints();
            for url in [resource_manager, authority, audience] {
                assert_eq!(KnownCloud::of_url(&url), Some(cloud), "{url}");
            }
        }
    }
}
