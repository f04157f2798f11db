//! Which policies run for which route and which consumer (Kong's precedence), as flat arrays.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::check::{Checked, Scope};
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::{Model, Plugin};
use crate::policy::{Cx, Step, order};
use crate::snapshot::shared::Shared;
use crate::snapshot::{Chain, ChainId, ClassId};

/// All chains of a config, while it is compiled.
pub struct Chains<'a> {
    model: &'a Checked<Model>,
    pub steps: Vec<Step>,
    pub chains: Vec<Chain>,
    /// The consumers' classes, in the model's order.
    pub classes: Vec<Option<ClassId>>,
    pub no_route: Option<ChainId>,
    /// Base chain and those of classes, by route.
    pub of_route: Vec<(ChainId, Vec<(ClassId, ChainId)>)>,
    /// Place in the order, and step, of each plugin that runs at all.
    ready: Vec<Option<(u16, u32)>>,
    /// Plugins without consumer or group, by what they are attached to.
    global: Vec<usize>,
    by_service: HashMap<usize, Vec<usize>>,
    by_route: HashMap<usize, Vec<usize>>,
    /// The plugins of each class.
    of_class: Vec<Vec<usize>>,
}

/// Compiles the plugins and resolves them for every route and class.
pub fn build<'a>(model: &'a Checked<Model>, shared: &Arc<Shared>, diags: &mut Diags) -> Chains<'a> {
    let mut this = Chains {
        model,
        steps: Vec::new(),
        chains: Vec::new(),
        classes: Vec::new(),
        no_route: None,
        of_route: Vec::with_capacity(model.routes.len()),
        ready: Vec::with_capacity(model.plugins.len()),
        global: Vec::new(),
        by_service: HashMap::new(),
        by_route: HashMap::new(),
        of_class: Vec::new(),
    };
    for (i, plugin) in model.plugins.iter().enumerate() {
        let ready = this.compile(plugin, this.scope(i), shared, diags);
        this.ready.push(ready);
        if ready.is_some() {
            this.file(i);
        }
    }
    this.classify();
    this.resolve();
    this
}

impl Chains<'_> {
    fn scope(&self, plugin: usize) -> Scope {
        self.model.links().plugin_scope.get(plugin).copied().unwrap_or_default()
    }

    fn compile(
        &mut self,
        plugin: &Plugin,
        scope: Scope,
        shared: &Arc<Shared>,
        diags: &mut Diags,
    ) -> Option<(u16, u32)> {
        let place = order::position(&plugin.name)?;
        if !plugin.enabled {
            return None;
        }
        let model = self.model;
        let mut cx = Cx {
            model,
            plugin,
            route_id: scope.route.map(|i| model.routes[i].id.as_str()),
            service_id: scope.service.map(|i| model.services[i].id.as_str()),
            consumer_id: scope.consumer.map(|i| model.consumers[i].id.as_str()),
            shared,
            diags,
        };
        let before = cx.diags.len();
        let Some(step) = Step::compile(&plugin.name, &plugin.config, &mut cx) else {
            // A policy that is not made must stop the config: routes would go on without it.
            if !crate::diag::has_errors(&diags[before..]) {
                let message = format!("the config of `{}` makes no policy", plugin.name.value);
                diags.push(Diagnostic::new(&codes::INVALID_VALUE, plugin.span, message));
            }
            return None;
        };
        self.steps.push(step);
        Some((place as u16, self.steps.len() as u32 - 1))
    }

    /// Puts a plugin where routes will look for it.
    fn file(&mut self, plugin: usize) {
        let s = self.scope(plugin);
        if s.consumer.is_some() || s.consumer_group.is_some() {
            return;
        }
        match (s.route, s.service) {
            (Some(route), _) => self.by_route.entry(route).or_default().push(plugin),
            (None, Some(service)) => self.by_service.entry(service).or_default().push(plugin),
            (None, None) => self.global.push(plugin),
        }
    }

    /// Consumers with the same plugins of their own are one class.
    fn classify(&mut self) {
        let mut of_consumer: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut of_group: HashMap<usize, Vec<usize>> = HashMap::new();
        for i in 0..self.model.plugins.len() {
            let s = self.scope(i);
            match (self.ready[i], s.consumer, s.consumer_group) {
                (None, ..) => {}
                (_, Some(c), _) => of_consumer.entry(c).or_default().push(i),
                (_, None, Some(g)) => of_group.entry(g).or_default().push(i),
                _ => {}
            }
        }
        let mut known: HashMap<Vec<usize>, ClassId> = HashMap::new();
        for c in 0..self.model.consumers.len() {
            let mut own = of_consumer.get(&c).cloned().unwrap_or_default();
            for g in self.model.links().consumer_groups.get(c).into_iter().flatten() {
                own.extend(of_group.get(g).into_iter().flatten());
            }
            if own.is_empty() {
                self.classes.push(None);
                continue;
            }
            let next = ClassId(self.of_class.len() as u32);
            let class = *known.entry(own.clone()).or_insert(next);
            if class == next {
                self.of_class.push(own);
            }
            self.classes.push(Some(class));
        }
    }

    fn resolve(&mut self) {
        let mut known: HashMap<Chain, ChainId> = HashMap::new();
        let mut chains: Vec<Chain> = Vec::new();
        let mut intern = |chain: Chain| {
            let next = ChainId(chains.len() as u32);
            let id = *known.entry(chain.clone()).or_insert(next);
            if id == next {
                chains.push(chain);
            }
            id
        };
        let mut of_route = Vec::with_capacity(self.model.routes.len());
        let none = Vec::new();
        for route in 0..self.model.routes.len() {
            let service = self.model.links().route_service.get(route).copied().flatten();
            let of_service = service.and_then(|s| self.by_service.get(&s)).unwrap_or(&none);
            let own = self.by_route.get(&route).unwrap_or(&none);
            let here: Vec<usize> = (self.global.iter().chain(of_service).chain(own).copied())
                .filter(|p| self.fits(*p, route, service))
                .collect();
            let base = intern(self.choose(&here));
            let mut others = Vec::new();
            for (class, own) in self.of_class.iter().enumerate() {
                let own = own.iter().copied().filter(|p| self.fits(*p, route, service));
                let all: Vec<usize> = here.iter().copied().chain(own).collect();
                if all.len() == here.len() {
                    continue;
                }
                let chain = intern(self.choose(&all));
                if chain != base {
                    others.push((ClassId(class as u32), chain));
                }
            }
            of_route.push((base, others));
        }
        let no_route = self.choose(&self.global);
        if !no_route.steps.is_empty() {
            self.no_route = Some(intern(no_route));
        }
        self.of_route = of_route;
        self.chains = chains;
    }

    fn fits(&self, plugin: usize, route: usize, service: Option<usize>) -> bool {
        let s = self.scope(plugin);
        s.route.is_none_or(|r| r == route) && (s.service.is_none() || s.service == service)
    }

    /// One plugin of each name: the most specific; then in the pipeline's order.
    fn choose(&self, plugins: &[usize]) -> Chain {
        let mut best: HashMap<u16, (u8, u32)> = HashMap::new();
        for &p in plugins {
            let Some((place, step)) = self.ready[p] else { continue };
            let rank = specificity(self.scope(p));
            let slot = best.entry(place).or_insert((rank, step));
            if rank > slot.0 {
                *slot = (rank, step);
            }
        }
        let mut steps: Vec<(u16, u32)> = best.into_iter().map(|(place, (_, step))| (place, step)).collect();
        steps.sort_unstable();
        let filters = steps.iter().any(|(_, step)| self.steps[*step as usize].filters_response());
        Chain { steps: steps.into(), filters }
    }
}

/// The plugin of this name that a request meets on a route: of all enabled ones that apply, the most specific. For tools
/// that ask about one request; chains answer it for all at once.
pub fn plugin_for(
    model: &Checked<Model>,
    name: &str,
    route: usize,
    consumer: Option<usize>,
) -> Option<usize> {
    let links = model.links();
    let service = links.route_service.get(route).copied().flatten();
    let groups = consumer.and_then(|c| links.consumer_groups.get(c)).map_or(&[][..], Vec::as_slice);
    let applies = |s: &Scope| {
        s.route.is_none_or(|r| r == route)
            && (s.service.is_none() || s.service == service)
            && (s.consumer.is_none() || s.consumer == consumer)
            && s.consumer_group.is_none_or(|g| groups.contains(&g))
    };
    // Of equal ones that of the consumer's first group.
    let place = |s: &Scope| s.consumer_group.and_then(|g| groups.iter().position(|own| *own == g));
    let all = model.plugins.iter().zip(&links.plugin_scope).enumerate();
    all.filter(|(_, (plugin, scope))| plugin.enabled && plugin.name.value == name && applies(scope))
        .min_by_key(|(i, (_, scope))| (Reverse(specificity(**scope)), place(scope), *i))
        .map(|(i, _)| i)
}

/// Kong's order of scopes, the most specific highest.
fn specificity(s: Scope) -> u8 {
    match (s.consumer.is_some(), s.consumer_group.is_some(), s.route.is_some(), s.service.is_some()) {
        (true, _, true, true) => 11,
        (false, true, true, true) => 10,
        (true, _, true, false) => 9,
        (true, _, false, true) => 8,
        (false, true, true, false) => 7,
        (false, true, false, true) => 6,
        (false, false, true, true) => 5,
        (true, _, false, false) => 4,
        (false, true, false, false) => 3,
        (false, false, true, false) => 2,
        (false, false, false, true) => 1,
        (false, false, false, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specificity_is_kongs_order() {
        let s = |consumer: bool, route: bool, service: bool| {
            let some = |b: bool| b.then_some(0);
            let (route, service, consumer) = (some(route), some(service), some(consumer));
            specificity(Scope { route, service, consumer, consumer_group: None })
        };
        let order = [
            s(true, true, true),
            s(true, true, false),
            s(true, false, true),
            s(false, true, true),
            s(true, false, false),
            s(false, true, false),
            s(false, false, true),
            s(false, false, false),
        ];
        assert!(order.windows(2).all(|w| w[0] > w[1]), "{order:?}");
    }
}
