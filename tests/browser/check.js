// A rule gives its own impact to all that it finds, so those of a slight impact are not run.
async (wanted) => (await axe.run(document, {
  rules: Object.fromEntries(
    axe._audit.rules.filter(({impact}) => ["minor", "moderate"].includes(impact)).map(({id}) => [id, {enabled: false}])
  ),
  runOnly: wanted, resultTypes: ["violations"],
})).violations.map(({id, impact, nodes}) => [impact, id, nodes.map((one) => one.target.join(" ")).slice(0, 3)])
