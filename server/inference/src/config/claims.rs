//! What each instance takes while it runs: `rate_limiter` of its group.

use proto::ModelConfig;
use proto::v2::ModelInstanceGroup;
use proto::v2::model_rate_limiter::Resource as Asked;

use crate::rate_limiter::{Claim, Resource};

/// Every instance runs on the CPU, which Triton counts as device 0.
const CPU: u32 = 0;

/// Whether any instance asks to be limited.
pub(crate) fn asks_for_a_limit(config: &ModelConfig) -> bool {
    config.instance_group.iter().any(|group| group.rate_limiter.is_some())
}

/// What each instance that takes requests takes while it runs, in their order. `config` is normalised.
///
/// # Errors
/// A sentence that names the field, when a resource has no name, or is named twice.
pub(crate) fn claims(config: &ModelConfig) -> Result<Vec<Claim>, String> {
    let mut claims = Vec::new();
    for group in config.instance_group.iter().filter(|group| !group.passive) {
        let claim = claim(group)?;
        let instances = usize::try_from(group.count).unwrap_or(0);
        claims.extend(std::iter::repeat_n(claim, instances));
    }
    Ok(claims)
}

fn claim(group: &ModelInstanceGroup) -> Result<Claim, String> {
    let limiter = group.rate_limiter.as_ref();
    let asked = limiter.map_or(&[][..], |limiter| &limiter.resources);
    for (index, resource) in asked.iter().enumerate() {
        let problem = if resource.name.is_empty() {
            "has a resource without a name; name it, or leave it out".to_owned()
        } else if asked[..index].iter().any(|before| before.name == resource.name) {
            format!("has {:?} twice; give it once, with all that an instance takes", resource.name)
        } else {
            continue;
        };
        return Err(format!("rate_limiter.resources of instance_group {:?} {problem}", group.name));
    }
    let resource = |asked: &Asked| {
        let device = (!asked.global).then_some(CPU);
        (Resource { name: asked.name.as_str().into(), device }, u64::from(asked.count))
    };
    // Who asks for nothing of it waits for nobody.
    let resources = asked.iter().filter(|asked| asked.count > 0).map(resource).collect();
    let priority = limiter.map_or(0, |limiter| limiter.priority).max(1); // 0 is 1, as with Triton
    Ok(Claim { group: group.name.as_str().into(), resources, priority: priority.into() })
}

#[cfg(test)]
mod tests {
    use model::ModelName;

    use super::*;
    use crate::config::normalise;

    fn of(text: &str) -> Result<Vec<Claim>, String> {
        let mut config = proto::config_text::parse(text, "config.pbtxt").unwrap();
        normalise(&mut config, &ModelName::parse("m").unwrap(), 4).unwrap();
        claims(&config)
    }

    fn resource(name: &str, device: Option<u32>, count: u64) -> (Resource, u64) {
        (Resource { name: name.into(), device }, count)
    }

    #[test]
    fn each_instance_that_takes_requests_claims_what_its_group_says() {
        let claims = of(r#"
            instance_group { count: 2 rate_limiter {
                resources { name: "R1" count: 4 } resources { name: "R2" global: true count: 2 } priority: 2
            } }
            instance_group { count: 3 passive: true rate_limiter { resources { name: "R3" count: 1 } } }
            instance_group { count: 1 kind: KIND_MODEL rate_limiter { resources { name: "R1" count: 1 } } }
            instance_group { count: 1 }"#)
        .unwrap();
        let groups: Vec<_> = claims.iter().map(|claim| (claim.group.as_str(), claim.priority)).collect();
        assert_eq!(groups, [("m_0", 2), ("m_0", 2), ("m_2", 1), ("m_3", 1)]);
        assert_eq!(claims[0].resources, [resource("R1", Some(0), 4), resource("R2", None, 2)]);
        assert_eq!(claims[1].resources, claims[0].resources);
        assert_eq!(claims[2].resources, [resource("R1", Some(0), 1)]);
        assert_eq!(claims[3].resources, []);
    }

    #[test]
    fn nothing_asked_for_is_nothing_claimed_and_priority_0_is_1() {
        let claims = of(r#"instance_group { count: 1 rate_limiter { resources { name: "R" } } }"#).unwrap();
        assert_eq!((claims[0].resources.len(), claims[0].priority), (0, 1));
        assert_eq!(of("").unwrap().len(), 2, "the default number of instances");
    }

    #[test]
    fn a_resource_has_a_name_and_is_asked_for_once() {
        let refused = |resources: &str| {
            of(&format!("instance_group {{ rate_limiter {{ {resources} }} }}")).unwrap_err()
        };
        assert_eq!(
            refused("resources { count: 1 }"),
            "rate_limiter.resources of instance_group \"m_0\" has a resource without a name; name it, or leave it out"
        );
        assert_eq!(
            refused(r#"resources { name: "R" count: 1 } resources { name: "R" global: true count: 2 }"#),
            "rate_limiter.resources of instance_group \"m_0\" has \"R\" twice; give it once, with all that an instance \
             takes"
        );
    }
}
