-- Recipes, and what the plans of runs were made from: reads, then statements of the writer.

-- name: recipes_of_repo
-- The versions of a repository's recipe that are kept, the newest first.
SELECT version, recipe FROM recipe WHERE repo_id = ? ORDER BY version DESC;

-- name: recipe_with_blueprint
-- A version of a recipe with what it is made of.
SELECT recipe.recipe, recipe_blueprint.blueprint FROM recipe
JOIN recipe_blueprint ON recipe_blueprint.repo_id = recipe.repo_id AND recipe_blueprint.version = recipe.version
WHERE recipe.repo_id = ? AND recipe.version = ?;

-- name: blueprint_of_run
-- What the plan of a run was made from.
SELECT blueprint FROM blueprint WHERE run_id = ?;

-- name: has_blueprint
-- Whether it is still there.
SELECT count(*) FROM blueprint WHERE run_id = ?;

-- name: insert_blueprint
-- Conditional. What the plan of a run was made from, once.
INSERT INTO blueprint (run_id, blueprint) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: drop_blueprint
-- The end of the run was told.
DELETE FROM blueprint WHERE run_id = ?;

-- name: insert_recipe
-- Conditional. A new version; no row when it is there already.
INSERT INTO recipe (repo_id, version, revision, recipe) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: update_recipe
-- Conditional. The next revision of a version; no row when another one is stored.
UPDATE recipe SET revision = ?, recipe = ? WHERE repo_id = ? AND version = ? AND revision = ?;

-- name: insert_recipe_blueprint
-- What the new version is made of.
INSERT INTO recipe_blueprint (repo_id, version, blueprint) VALUES (?, ?, ?);

-- name: forget_recipes
-- Versions up to this one are too old to keep.
DELETE FROM recipe WHERE repo_id = ? AND version <= ?;

-- name: forget_recipe_blueprints
-- And what they were made of.
DELETE FROM recipe_blueprint WHERE repo_id = ? AND version <= ?;
