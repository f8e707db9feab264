/*
 * checkpoint_defpriv.h: parts of a checkpoint's XML for the records of the store
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DEFPRIV_H
#define VIR_CHECKPOINT_DEFPRIV_H

#include "checkpoint_def.h"
#include "checkpoint_xml.h"

/** As in a record: a name is needed, creationTime is not, the domain is elsewhere. */
#define VIR_CHECKPOINT_DEF_PARSE_STORED (1 << 16)

/** Parses the element <domaincheckpoint> @root. */
virCheckpointDef *
virCheckpointDefParseNode(xmlNode *root, guint flags, GError **error);

/** Appends the XML of @def to @buf, each line @indent columns to the right. */
void
virCheckpointDefFormatInto(GString *buf,
                           const virCheckpointDef *def,
                           guint flags,
                           guint indent);

#endif
