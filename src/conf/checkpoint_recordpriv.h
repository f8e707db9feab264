/*
 * checkpoint_recordpriv.h: what the records of checkpoints and of jobs share
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_RECORDPRIV_H
#define VIR_CHECKPOINT_RECORDPRIV_H

#include "checkpoint_xml.h"

/** TRUE if @id (or NULL) is 32 lower-case hex digits. */
gboolean
virCheckpointRecordIdIsGood(const gchar *id);

/** Appends <@element>@text</@element> such that exactly @text comes back. */
void
virCheckpointRecordFormatText(GString *buf, const gchar *element, const gchar *text);

/** Parses a record and checks its root and version. */
xmlDoc *
virCheckpointRecordOpen(const gchar *xml, const gchar *root, GError **error);

/** Sets VIR_ERR_XML_ERROR "invalid or missing @what".  Returns: FALSE. */
gboolean
virCheckpointRecordFail(GError **error, const gchar *what);

/** Appends <@element part='...'/> for each of @parts (gchar*); NULL: none. */
void
virCheckpointRecordFormatParts(GString *buf, const gchar *element, GPtrArray *parts);

/** Returns: (transfer full): GPtrArray of gchar*: what FormatParts wrote at @xpath. */
GPtrArray *
virCheckpointRecordParts(xmlNode *root, const gchar *xpath);

/** Returns: the place of @text (or NULL) in @names, or -1. */
gint
virCheckpointRecordEnum(const gchar *const *names, gint last, const gchar *text);

#endif
