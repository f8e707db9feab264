/*
 * checkpoint_xml.h: libxml2 without network, files or surprises
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_XML_H
#define VIR_CHECKPOINT_XML_H

#include <glib.h>
#include <libxml/tree.h>
#include <libxml/xpath.h>

/** Documents larger than this are refused before parsing. */
#define VIR_CHECKPOINT_XML_MAX_BYTES 4194304

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlXPathContext, xmlXPathFreeContext)

/**
 * virCheckpointXmlParse:
 * @xml: UTF-8 text; @what: names it in errors, such as "(domain_checkpoint)"
 * @root: the element that the document must have, or NULL for any
 *
 * No network, no external entities, no entity expansion, no DTD, bounded depth and
 * size.
 *
 * Returns: (transfer full): the document, or NULL with VIR_ERR_XML_DETAIL "WHAT:LINE:
 * reason" (malformed, as libvirt has it) or VIR_ERR_XML_ERROR (too large; other root,
 * with libvirt's "unexpected root element <x>, expecting <y>").
 */
xmlDoc *
virCheckpointXmlParse(const gchar *xml,
                      const gchar *what,
                      const gchar *root,
                      GError **error);

/* XPath relative to @node.  NULL / FALSE when there is no such thing. */
gchar *
virCheckpointXmlString(xmlNode *node, const gchar *xpath);
gboolean
virCheckpointXmlUint64(xmlNode *node, const gchar *xpath, guint64 *out);
xmlNode *
virCheckpointXmlNode(xmlNode *node, const gchar *xpath);
/** Returns: (transfer container): borrowed xmlNode pointers, maybe none. */
GPtrArray *
virCheckpointXmlNodes(xmlNode *node, const gchar *xpath);

/** Appends @text to @buf with &, <, >, ' and " escaped and forbidden control characters
 * dropped. */
void
virCheckpointXmlEscape(GString *buf, const gchar *text);
/** Appends printf-like text in which every %s argument is escaped. */
void
virCheckpointXmlAppend(GString *buf, const gchar *format, ...) G_GNUC_PRINTF(2, 3);
/** Returns: (transfer full): the element with its contents as text, as libvirt would
 * print it. */
gchar *
virCheckpointXmlNodeText(xmlNode *node);

#endif
