/*
 * checkpoint_tree.h: relations between the checkpoints of one domain
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_TREE_H
#define VIR_CHECKPOINT_TREE_H

#include "checkpoint_record.h"

/* All functions work on @records: GPtrArray of virCheckpointRecord*, any order, as
 * virCheckpointStoreList() returns it.  What is returned is borrowed from it. */

virCheckpointRecord *
virCheckpointTreeByName(GPtrArray *records, const gchar *name);
virCheckpointRecord *
virCheckpointTreeById(GPtrArray *records, const gchar *id);
/** The parent: by def->parent; NULL for a root or a parent that is not ours. */
virCheckpointRecord *
virCheckpointTreeParent(GPtrArray *records, const virCheckpointRecord *record);
/** Direct children, by creation order. */
GPtrArray *
virCheckpointTreeChildren(GPtrArray *records, const gchar *name);
/** All descendants in topological order (parents first). */
GPtrArray *
virCheckpointTreeDescendants(GPtrArray *records, const gchar *name);
/** The current checkpoint: the leaf that the next create gets as parent; NULL if there
 * is none. */
virCheckpointRecord *
virCheckpointTreeCurrent(GPtrArray *records);
/** All in topological order, roots first. */
GPtrArray *
virCheckpointTreeSorted(GPtrArray *records);

/**
 * virCheckpointTreeChain:
 * Returns: (transfer container): the records that cover disk @target from @from
 * (included) to the newest, oldest first: their segments together hold all changes
 * since @from.
 *
 * Empty if @from does not cover the disk, and also if the newest record of the disk
 * does not descend from @from (a branch, or a record between them that cannot be read)
 * or has no bitmap (then it is not the newest, or tracking ended): if @from has a
 * segment of
 * @target, an empty chain is an inconsistent one.
 */
GPtrArray *
virCheckpointTreeChain(GPtrArray *records,
                       const virCheckpointRecord *from,
                       const gchar *target);
/** The nearest ancestor of @record that covers @target, or NULL. */
virCheckpointRecord *
virCheckpointTreePrevious(GPtrArray *records,
                          const virCheckpointRecord *record,
                          const gchar *target);
/** The newest record that covers @target (the owner of the active bitmap), or NULL.
 * Records in state CREATING do not count. */
virCheckpointRecord *
virCheckpointTreeNewest(GPtrArray *records, const gchar *target);

/**
 * virCheckpointTreeCheckParent:
 * @name: a checkpoint that is redefined with @parent (or NULL)
 *
 * FALSE with VIR_ERR_INVALID_ARG and libvirt's text if @parent is @name itself, is not
 * there, or descends from @name.
 */
gboolean
virCheckpointTreeCheckParent(GPtrArray *records,
                             const gchar *name,
                             const gchar *parent,
                             GError **error);

#endif
