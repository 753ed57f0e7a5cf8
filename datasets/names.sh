# amazon_name NAME: what Amazon's 2018 release calls one of the paper's data sets (see README.md here for why); fails for others.
amazon_name() {
    case "$1" in
        cloth) echo Clothing_Shoes_and_Jewelry ;;
        movie) echo Movies_and_TV ;;
        music) echo CDs_and_Vinyl ;;
        sport) echo Sports_and_Outdoors ;;
        *) return 1 ;;
    esac
}
