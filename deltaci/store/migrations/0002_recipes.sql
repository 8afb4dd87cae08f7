-- Recipes: what was found to build a repository, kept by version, and what the plan of a run was made from.

-- From the plan of a run until its end was told to the recipes.
CREATE TABLE blueprint (
    run_id TEXT PRIMARY KEY,
    blueprint BLOB NOT NULL
);

-- `recipe` is the msgpack of the domain struct; the other columns are derived from it.
CREATE TABLE recipe (
    repo_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    recipe BLOB NOT NULL,
    PRIMARY KEY (repo_id, version)
) WITHOUT ROWID;

-- Apart from `recipe`, whose row is rewritten with every run that confirms it. This may be megabytes, and never changes.
CREATE TABLE recipe_blueprint (
    repo_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    blueprint BLOB NOT NULL,
    PRIMARY KEY (repo_id, version)
);
