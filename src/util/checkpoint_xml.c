/*
 * checkpoint_xml.c: libxml2 without network, files or surprises
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * XML comes from clients, from libvirt and from our own files, and all of it is parsed
 * with the same care: its size is checked before the parser sees it, the parser stops
 * at the first sign of a DTD (so there are no entities to expand or to fetch), and it
 * keeps libxml2's own limit on depth (XML_PARSE_HUGE is never given).
 *
 * Text goes out as libvirt writes it: two spaces of indent, attributes in single
 * quotes, five characters escaped, forbidden control characters dropped.  Contents of
 * <metadata> belong to applications; libvirt lets libxml2 print them, so they have
 * double quotes and namespaces in front.
 */

#include "config.h"

#include "checkpoint_xml.h"

#include "checkpoint_error.h"

#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <libxml/xpathInternals.h>
#include <stdarg.h>
#include <string.h>

/* How much of a line is quoted in front of the place where the parser stopped. */
#define VIR_CHECKPOINT_XML_CONTEXT_BYTES 80

static void
virCheckpointXmlInit(void)
{
    static gsize once = 0;

    if (g_once_init_enter(&once)) {
        xmlInitParser();
        g_once_init_leave(&once, 1);
    }
}

/* Why a text is refused: what the parser said first. */
typedef struct virCheckpointXmlRefusal {
    gchar *message; /* reason, without its line end; NULL: not refused yet */
    gint number;    /* of the line */
    gchar *quote;   /* "\nLINE\n---^", or NULL */
} virCheckpointXmlRefusal;

static void
virCheckpointXmlRefusalClear(virCheckpointXmlRefusal *refusal)
{
    g_free(refusal->message);
    g_free(refusal->quote);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointXmlRefusal, virCheckpointXmlRefusalClear)

/* A DTD begins: nothing that needs one is ours. */
static void
virCheckpointXmlRefuseDtd(void *opaque,
                          const xmlChar *name,
                          const xmlChar *externalId,
                          const xmlChar *systemId)
{
    xmlParserCtxt *ctxt = opaque;
    virCheckpointXmlRefusal *refusal = ctxt->_private;

    if (!refusal->message) {
        /* Stopping moves the input on, so the line is noted here. */
        refusal->message = g_strdup("document type is not allowed");
        refusal->number = ctxt->input ? ctxt->input->line : 1;
    }
    xmlStopParser(ctxt);
}

/* The line in which the parser is, and an arrow to the place. */
static gchar *
virCheckpointXmlQuote(const xmlParserInput *input)
{
    const gchar *base = (const gchar *)input->base;
    const gchar *stop = (const gchar *)input->cur;
    const gchar *start = NULL;
    g_autofree gchar *line = NULL;
    g_autofree gchar *arrow = NULL;

    while (stop > base && (*stop == '\n' || *stop == '\r'))
        stop--;
    start = stop;
    while (start > base && start[-1] != '\n' && start[-1] != '\r' &&
           stop - start < VIR_CHECKPOINT_XML_CONTEXT_BYTES)
        start--;
    line = g_strndup(start, strcspn(start, "\r\n"));
    if (!*line)
        return NULL;
    if (strlen(line) > 2 * VIR_CHECKPOINT_XML_CONTEXT_BYTES)
        line[2 * VIR_CHECKPOINT_XML_CONTEXT_BYTES] = '\0';
    arrow = g_strnfill((gsize)(stop - start), '-');
    return g_strconcat("\n", line, "\n", arrow, "^", NULL);
}

/* libvirt's shape: the parser's sentence, the line, and an arrow to the place. */
static void
virCheckpointXmlNoteError(void *opaque, xmlError *error)
{
    xmlParserCtxt *ctxt = opaque;
    virCheckpointXmlRefusal *refusal = ctxt->_private;

    if (refusal->message || error->level != XML_ERR_FATAL || !error->message)
        return;
    refusal->message = g_strchomp(g_strdup(error->message));
    refusal->number = error->line;
    if (error->domain == XML_FROM_PARSER && ctxt->input && ctxt->input->base)
        refusal->quote = virCheckpointXmlQuote(ctxt->input);
}

static xmlDoc *
virCheckpointXmlParseText(const gchar *xml, const gchar *what, GError **error)
{
    const int options = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING;
    g_auto(virCheckpointXmlRefusal) refusal = {0};
    gsize length = strlen(xml);
    xmlParserCtxt *ctxt = NULL;
    xmlDoc *doc = NULL;

    if (length > VIR_CHECKPOINT_XML_MAX_BYTES) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR,
                    "%s is larger than %d bytes", what, VIR_CHECKPOINT_XML_MAX_BYTES);
        return NULL;
    }
    ctxt = xmlNewParserCtxt();
    g_assert(ctxt && ctxt->sax);
    ctxt->_private = &refusal;
    ctxt->sax->internalSubset = virCheckpointXmlRefuseDtd;
    ctxt->sax->serror = virCheckpointXmlNoteError;

    /* UTF-8 whatever the declaration says, as in libvirt: the protocol has no other. */
    doc = xmlCtxtReadMemory(ctxt, xml, (int)length, NULL, "UTF-8", options);
    if (!doc || refusal.message || !xmlDocGetRootElement(doc)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_DETAIL, "%s:%d: %s%s",
                    what, refusal.number ? refusal.number : 1,
                    refusal.message ? refusal.message : "cannot parse",
                    refusal.quote ? refusal.quote : "");
        g_clear_pointer(&doc, xmlFreeDoc);
    }
    xmlFreeParserCtxt(ctxt);
    return doc;
}

xmlDoc *
virCheckpointXmlParse(const gchar *xml,
                      const gchar *what,
                      const gchar *root,
                      GError **error)
{
    g_autoptr(xmlDoc) doc = NULL;
    const gchar *name = NULL;

    g_assert(xml && what);
    virCheckpointXmlInit();

    doc = virCheckpointXmlParseText(xml, what, error);
    if (!doc)
        return NULL;
    name = (const gchar *)xmlDocGetRootElement(doc)->name;
    if (root && !g_str_equal(name, root)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR,
                    "unexpected root element <%s>, expecting <%s>", name, root);
        return NULL;
    }
    return g_steal_pointer(&doc);
}

/* Reading */

static void
virCheckpointXmlIgnore(void *opaque, xmlError *error)
{
}

static xmlXPathObject *
virCheckpointXmlEval(xmlNode *node, const gchar *xpath)
{
    g_autoptr(xmlXPathContext) ctxt = NULL;

    if (!node)
        return NULL;
    ctxt = xmlXPathNewContext(node->doc);
    g_assert(ctxt);
    ctxt->node = node;
    ctxt->error = virCheckpointXmlIgnore;
    return xmlXPathEval((const xmlChar *)xpath, ctxt);
}

gchar *
virCheckpointXmlString(xmlNode *node, const gchar *xpath)
{
    xmlXPathObject *object = virCheckpointXmlEval(node, xpath);
    xmlChar *text = NULL;
    gchar *copy = NULL;

    if (!object)
        return NULL;
    if (object->type == XPATH_NODESET) {
        if (object->nodesetval && object->nodesetval->nodeNr > 0)
            text = xmlNodeGetContent(object->nodesetval->nodeTab[0]);
    } else {
        text = xmlXPathCastToString(object);
        if (text && !*text)
            g_clear_pointer(&text, xmlFree);
    }
    copy = g_strdup((const gchar *)text);
    xmlFree(text);
    xmlXPathFreeObject(object);
    return copy;
}

gboolean
virCheckpointXmlUint64(xmlNode *node, const gchar *xpath, guint64 *out)
{
    g_autofree gchar *text = virCheckpointXmlString(node, xpath);

    if (!text)
        return FALSE;
    return g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT64, out, NULL);
}

xmlNode *
virCheckpointXmlNode(xmlNode *node, const gchar *xpath)
{
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(node, xpath);

    return nodes->len > 0 ? g_ptr_array_index(nodes, 0) : NULL;
}

GPtrArray *
virCheckpointXmlNodes(xmlNode *node, const gchar *xpath)
{
    xmlXPathObject *object = virCheckpointXmlEval(node, xpath);
    GPtrArray *nodes = g_ptr_array_new();
    int i;

    if (!object)
        return nodes;
    if (object->type == XPATH_NODESET && object->nodesetval) {
        for (i = 0; i < object->nodesetval->nodeNr; i++) {
            if (object->nodesetval->nodeTab[i]->type == XML_ELEMENT_NODE)
                g_ptr_array_add(nodes, object->nodesetval->nodeTab[i]);
        }
    }
    xmlXPathFreeObject(object);
    return nodes;
}

/* Writing */

/* Carriage returns, and in an @attribute line ends and tabs, are written as references:
 * a parser would make other white space of them. */
static void
virCheckpointXmlEscapeInto(GString *buf, const gchar *text, gboolean attribute)
{
    g_autofree gchar *valid = g_utf8_make_valid(text, -1);
    const gchar *p = NULL;

    for (p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (c == '<')
            g_string_append(buf, "&lt;");
        else if (c == '>')
            g_string_append(buf, "&gt;");
        else if (c == '&')
            g_string_append(buf, "&amp;");
        else if (c == '"')
            g_string_append(buf, "&quot;");
        else if (c == '\'')
            g_string_append(buf, "&apos;");
        else if (c == '\r' || (attribute && (c == '\t' || c == '\n')))
            g_string_append_printf(buf, "&#%u;", c);
        else if (c >= 0x20 || c == '\t' || c == '\n')
            /* U+FFFE and U+FFFF are valid UTF-8 but no XML characters. */
            g_string_append_unichar(buf, c == 0xFFFE || c == 0xFFFF ? 0xFFFD : c);
    }
}

void
virCheckpointXmlEscape(GString *buf, const gchar *text)
{
    virCheckpointXmlEscapeInto(buf, text, FALSE);
}

/* Appends the number that conversion @conv with @longs letters "l" takes from @ap. */
static void
virCheckpointXmlAppendNumber(GString *buf, gchar conv, guint longs, va_list *ap)
{
    gboolean isSigned = conv == 'd' || conv == 'i';
    guint64 number = 0;

    g_assert(isSigned || conv == 'u' || conv == 'x');
    if (longs == 0)
        number = isSigned ? (guint64)va_arg(*ap, gint) : va_arg(*ap, guint);
    else if (longs == 1)
        number = isSigned ? (guint64)va_arg(*ap, glong) : va_arg(*ap, gulong);
    else
        number = va_arg(*ap, guint64);

    if (isSigned)
        g_string_append_printf(buf, "%" G_GINT64_FORMAT, (gint64)number);
    else if (conv == 'x')
        g_string_append_printf(buf, "%" G_GINT64_MODIFIER "x", number);
    else
        g_string_append_printf(buf, "%" G_GUINT64_FORMAT, number);
}

void
virCheckpointXmlAppend(GString *buf, const gchar *format, ...)
{
    const gchar *p = NULL;
    va_list ap;

    va_start(ap, format);
    for (p = format; *p; p++) {
        guint longs = 0;

        if (*p != '%') {
            g_string_append_c(buf, *p);
            continue;
        }
        for (p++; *p == 'l' || *p == 'z'; p++)
            longs++;
        if (*p == '%') {
            g_string_append_c(buf, '%');
        } else if (*p == 's') {
            gchar before = buf->len > 0 ? buf->str[buf->len - 1] : '\0';

            virCheckpointXmlEscapeInto(buf, va_arg(ap, const gchar *),
                                       before == '\'' || before == '"');
        } else {
            virCheckpointXmlAppendNumber(buf, *p, longs, &ap);
        }
    }
    va_end(ap);
}

/* How an element is laid out when printed. */
typedef struct virCheckpointXmlLayout {
    guint indent;
    gboolean foreign; /* inside <metadata> */
} virCheckpointXmlLayout;

static void
virCheckpointXmlPrintName(GString *buf, const xmlNs *ns, const xmlChar *name)
{
    if (ns && ns->prefix)
        g_string_append_printf(buf, "%s:", (const gchar *)ns->prefix);
    g_string_append(buf, (const gchar *)name);
}

static void
virCheckpointXmlPrintAttributes(GString *buf, xmlNode *node, gchar quote)
{
    const xmlAttr *attr = NULL;

    for (attr = node->properties; attr; attr = attr->next) {
        xmlChar *value = xmlNodeGetContent((const xmlNode *)attr);

        g_string_append_c(buf, ' ');
        virCheckpointXmlPrintName(buf, attr->ns, attr->name);
        g_string_append_printf(buf, "=%c", quote);
        virCheckpointXmlEscapeInto(buf, value ? (const gchar *)value : "", TRUE);
        g_string_append_c(buf, quote);
        xmlFree(value);
    }
}

static void
virCheckpointXmlPrintNamespaces(GString *buf, xmlNode *node, gchar quote)
{
    const xmlNs *ns = NULL;

    for (ns = node->nsDef; ns; ns = ns->next) {
        g_string_append(buf, " xmlns");
        if (ns->prefix)
            g_string_append_printf(buf, ":%s", (const gchar *)ns->prefix);
        g_string_append_printf(buf, "=%c", quote);
        virCheckpointXmlEscapeInto(buf, ns->href ? (const gchar *)ns->href : "", TRUE);
        g_string_append_c(buf, quote);
    }
}

/* TRUE if @node has nothing but elements, comments and white space between them. */
static gboolean
virCheckpointXmlHasOnlyElements(xmlNode *node)
{
    const xmlNode *child = NULL;
    gboolean elements = FALSE;

    for (child = node->children; child; child = child->next) {
        if (child->type == XML_ELEMENT_NODE)
            elements = TRUE;
        else if (child->type != XML_COMMENT_NODE && !xmlIsBlankNode(child))
            return FALSE;
    }
    return elements;
}

static void
virCheckpointXmlPrint(GString *buf, xmlNode *node, virCheckpointXmlLayout layout);

/* Children one a line, white space between them made anew. */
static void
virCheckpointXmlPrintLines(GString *buf, xmlNode *node, virCheckpointXmlLayout layout)
{
    virCheckpointXmlLayout inner = layout;
    xmlNode *child = NULL;

    inner.indent += 2;
    for (child = node->children; child; child = child->next) {
        if (child->type != XML_ELEMENT_NODE)
            continue;
        g_string_append_printf(buf, "\n%*s", (int)inner.indent, "");
        virCheckpointXmlPrint(buf, child, inner);
    }
    g_string_append_printf(buf, "\n%*s", (int)layout.indent, "");
}

/* Text and mixed contents: every character counts. */
static void
virCheckpointXmlPrintMixed(GString *buf, xmlNode *node, virCheckpointXmlLayout layout)
{
    xmlNode *child = NULL;

    for (child = node->children; child; child = child->next) {
        if (child->type == XML_ELEMENT_NODE)
            virCheckpointXmlPrint(buf, child, layout);
        else if (child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE)
            virCheckpointXmlEscape(buf, (const gchar *)child->content);
    }
}

/* Depth is bounded by the parser that made the tree. */
static void
virCheckpointXmlPrint(GString *buf, xmlNode *node, virCheckpointXmlLayout layout)
{
    virCheckpointXmlLayout inner = layout;
    const gchar quote = layout.foreign ? '"' : '\'';

    g_string_append_c(buf, '<');
    virCheckpointXmlPrintName(buf, node->ns, node->name);
    if (layout.foreign)
        virCheckpointXmlPrintNamespaces(buf, node, quote);
    virCheckpointXmlPrintAttributes(buf, node, quote);
    if (!layout.foreign)
        virCheckpointXmlPrintNamespaces(buf, node, quote);
    if (!node->children) {
        g_string_append(buf, "/>");
        return;
    }

    g_string_append_c(buf, '>');
    if (g_str_equal((const gchar *)node->name, "metadata"))
        inner.foreign = TRUE;
    if (virCheckpointXmlHasOnlyElements(node))
        virCheckpointXmlPrintLines(buf, node, inner);
    else
        virCheckpointXmlPrintMixed(buf, node, inner);
    g_string_append(buf, "</");
    virCheckpointXmlPrintName(buf, node->ns, node->name);
    g_string_append_c(buf, '>');
}

gchar *
virCheckpointXmlNodeText(xmlNode *node)
{
    GString *buf = g_string_new(NULL);
    virCheckpointXmlLayout layout = {0};

    g_assert(node && node->type == XML_ELEMENT_NODE);
    virCheckpointXmlPrint(buf, node, layout);
    return g_string_free(buf, FALSE);
}
