#include "debug_info.h"

#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static Dwarf *debug_information;
static Elf *program_image;
static const char *debug_file;

/* ---- finding it ------------------------------------------------------------------ */

static int find_debug_file(Dwfl_Module *module, void **data, const char *name,
                           Dwarf_Addr base, const char *file, const char *link,
                           GElf_Word crc, char **found)
{
    if (!debug_file)
        return dwfl_standard_find_debuginfo(module, data, name, base, file, link, crc,
                                            found);
    *found = strdup(debug_file);
    return open(debug_file, O_RDONLY);
}

const char *debug_info_open(const char *program, const char *debug)
{
    static char *directories = NULL; /* the standard ones */
    static const Dwfl_Callbacks callbacks = {
        .find_elf = dwfl_build_id_find_elf,
        .find_debuginfo = find_debug_file,
        .section_address = dwfl_offline_section_address,
        .debuginfo_path = &directories,
    };
    Dwarf_Addr bias;
    debug_file = debug;
    Dwfl *session = dwfl_begin(&callbacks);
    Dwfl_Module *module = session ? dwfl_report_offline(session, "", program, -1) : NULL;
    if (!module)
        return dwfl_errmsg(-1);
    dwfl_report_end(session, NULL, NULL);
    program_image = dwfl_module_getelf(module, &bias);
    debug_information = dwfl_module_getdwarf(module, &bias);
    if (program_image && debug_information)
        return NULL;
    return "it has no debug information, and none of its build id is installed: give the "
           "file with DEBUG=";
}

bool debug_info_exports(const char *symbol)
{
    Elf_Scn *section = NULL;
    while ((section = elf_nextscn(program_image, section))) {
        GElf_Shdr header;
        GElf_Sym entry;
        if (!gelf_getshdr(section, &header) || header.sh_type != SHT_DYNSYM)
            continue;
        Elf_Data *data = elf_getdata(section, NULL);
        for (int i = 0; data && gelf_getsym(data, i, &entry); i++) {
            const char *name = elf_strptr(program_image, header.sh_link, entry.st_name);
            if (entry.st_shndx != SHN_UNDEF && name && strcmp(name, symbol) == 0)
                return true;
        }
    }
    return false;
}

/* ---- names ----------------------------------------------------------------------- */

static bool is_unit(Dwarf_Die *unit, const char *file)
{
    const char *name = dwarf_diename(unit);
    const char *slash = name ? strrchr(name, '/') : NULL;
    return name && strcmp(slash ? slash + 1 : name, file) == 0;
}

/* Also in what it shares with other units. */
static bool find_child(Dwarf_Die *parent, bool (*wanted)(Dwarf_Die *, const char *),
                       const char *name, Dwarf_Die *found)
{
    Dwarf_Die child, imported;
    Dwarf_Attribute attribute;
    if (dwarf_child(parent, &child) != 0)
        return false;
    do {
        if (wanted(&child, name)) {
            *found = child;
            return true;
        }
        if (dwarf_tag(&child) == DW_TAG_imported_unit &&
            dwarf_formref_die(dwarf_attr(&child, DW_AT_import, &attribute), &imported) &&
            find_child(&imported, wanted, name, found))
            return true;
    } while (dwarf_siblingof(&child, &child) == 0);
    return false;
}

static bool find_in_unit(const char *file, bool (*wanted)(Dwarf_Die *, const char *),
                         const char *name, Dwarf_Die *found)
{
    Dwarf_CU *unit = NULL;
    Dwarf_Die top;
    while (dwarf_get_units(debug_information, unit, &unit, NULL, NULL, &top, NULL) == 0)
        if (is_unit(&top, file) && find_child(&top, wanted, name, found))
            return true;
    return false;
}

static bool is_named(Dwarf_Die *die, const char *name)
{
    const char *own = dwarf_diename(die);
    return own && strcmp(own, name) == 0;
}

static bool is_type(Dwarf_Die *die, const char *name)
{
    int tag = dwarf_tag(die);
    bool is_whole = (tag == DW_TAG_structure_type || tag == DW_TAG_union_type) &&
                    !dwarf_hasattr(die, DW_AT_declaration);
    return (is_whole || tag == DW_TAG_typedef) && is_named(die, name);
}

static bool is_variable(Dwarf_Die *die, const char *name)
{
    return dwarf_tag(die) == DW_TAG_variable && is_named(die, name) &&
           dwarf_hasattr(die, DW_AT_type);
}

/* ---- types ----------------------------------------------------------------------- */

static bool type_of(Dwarf_Die *die, Dwarf_Die *type)
{
    Dwarf_Attribute attribute;
    return dwarf_formref_die(dwarf_attr_integrate(die, DW_AT_type, &attribute), type);
}

/* Behind typedefs and qualifiers. */
static bool bare(Dwarf_Die *type)
{
    return dwarf_peel_type(type, type) == 0;
}

bool debug_info_struct(const char *unit, const char *name, Dwarf_Die *structure)
{
    return find_in_unit(unit, is_type, name, structure) && bare(structure) &&
           dwarf_tag(structure) != DW_TAG_pointer_type && dwarf_bytesize(structure) > 0;
}

bool debug_info_variable(const char *unit, const char *name, Dwarf_Die *structure)
{
    return find_in_unit(unit, is_variable, name, structure) &&
           type_of(structure, structure) && bare(structure);
}

long debug_info_bytes(Dwarf_Die *structure)
{
    return dwarf_bytesize(structure);
}

/* ---- members --------------------------------------------------------------------- */

static long number_of(Dwarf_Die *die, unsigned attribute_name)
{
    Dwarf_Attribute attribute;
    Dwarf_Word number;
    return dwarf_formudata(dwarf_attr(die, attribute_name, &attribute), &number) == 0
               ? (long)number
               : -1;
}

static struct debug_member place_of(Dwarf_Die *member)
{
    Dwarf_Die type;
    Dwarf_Word bytes;
    long bit = number_of(member, DW_AT_data_bit_offset);
    long bits = number_of(member, DW_AT_bit_size);
    long byte = number_of(member, DW_AT_data_member_location);
    if (bit < 0)
        bit = byte < 0 ? 0 : 8 * byte;
    if (bits < 0)
        bits = type_of(member, &type) && dwarf_aggregate_size(&type, &bytes) == 0
                   ? 8 * (long)bytes
                   : 0;
    return (struct debug_member){bit, bits};
}

static bool find_member(Dwarf_Die *structure, const char *name, size_t length,
                        Dwarf_Die *member, long *base)
{
    Dwarf_Die child, type;
    if (dwarf_child(structure, &child) != 0)
        return false;
    do {
        const char *own = dwarf_diename(&child);
        if (dwarf_tag(&child) != DW_TAG_member)
            continue;
        if (own && strlen(own) == length && memcmp(own, name, length) == 0) {
            *member = child;
            return true;
        }
        long before = *base;
        *base += place_of(&child).bit;
        if (!own && type_of(&child, &type) && bare(&type) &&
            find_member(&type, name, length, member, base))
            return true;
        *base = before;
    } while (dwarf_siblingof(&child, &child) == 0);
    return false;
}

static struct debug_member member_by_path(Dwarf_Die *structure, const char *path,
                                          const char *end, Dwarf_Die *member)
{
    struct debug_member none = {-1, -1}, place;
    long base = 0;
    size_t length = strcspn(path, ".|");
    if (!find_member(structure, path, length, member, &base))
        return none;
    place = place_of(member);
    place.bit += base;
    if (path + length == end)
        return place;
    Dwarf_Die type, last;
    if (!type_of(member, &type) || !bare(&type))
        return none;
    struct debug_member rest = member_by_path(&type, path + length + 1, end, &last);
    *member = last;
    return rest.bit < 0 ? none : (struct debug_member){place.bit + rest.bit, rest.bits};
}

static struct debug_member find_path(Dwarf_Die *structure, const char *path,
                                     Dwarf_Die *member)
{
    for (;;) {
        const char *end = path + strcspn(path, "|");
        struct debug_member place = member_by_path(structure, path, end, member);
        if (place.bit >= 0 || !*end)
            return place;
        path = end + 1;
    }
}

struct debug_member debug_info_member(Dwarf_Die *structure, const char *path)
{
    Dwarf_Die member;
    return find_path(structure, path, &member);
}

bool debug_info_is_pointer_to_pointer(Dwarf_Die *structure, const char *path)
{
    Dwarf_Die member;
    if (find_path(structure, path, &member).bit < 0 || !type_of(&member, &member) ||
        !bare(&member) || dwarf_tag(&member) != DW_TAG_pointer_type)
        return false;
    return type_of(&member, &member) && bare(&member) &&
           dwarf_tag(&member) == DW_TAG_pointer_type;
}
